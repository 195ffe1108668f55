//! Machine code for the loop kernels and native loops of a program, in executable memory of its own.

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError};
use hypatia_graph::{Broken, Literal, ScalarFn};

use crate::cpu::avx512;
use crate::cpu::emit::{Routines, emit};
use crate::cpu::native;
use crate::kernel::{LoopKernel, ScanKernel};
use hypatia_kernels::features::{Features, InstructionSet};

/// What becomes a function of its own.
#[derive(Copy, Clone)]
pub(super) enum Unit<'k> {
    /// A kernel.
    Kernel(&'k LoopKernel),
    /// A loop over steps whose kernels stand in it.
    Loop(&'k ScanKernel),
}

/// Compiled kernels. The addresses stay valid until the value is dropped.
pub(super) struct Code {
    module: Option<JITModule>,
    addresses: Vec<usize>,
    bytes: usize,
}

/// Why a program could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The code generator or the system's memory failed.
    #[error("machine code could not be made: {0}")]
    Code(String),
    /// A program that code cannot rely on (see [`crate::kernel::verify`]).
    #[error(transparent)]
    Broken(#[from] Broken),
    /// More values between steps than memory can hold.
    #[error("values between steps need {0} bytes of memory, which the system does not give")]
    Memory(usize),
}

impl From<ModuleError> for CodeError {
    fn from(error: ModuleError) -> CodeError {
        CodeError::Code(format!("{error:?}"))
    }
}

/// A double-precision function by its number in [`ScalarFn`].
extern "C" fn double_function(which: u64, x: f64, y: f64) -> f64 {
    let f = ScalarFn::ALL.get(which as usize).copied().unwrap_or(ScalarFn::Add);
    let operands = [Literal::F64(x.to_bits()), Literal::F64(y.to_bits())];
    f.eval(&operands[..f.arity().min(2)]).map_or(f64::NAN, Literal::to_f64)
}

/// An integer function by its number in [`ScalarFn`].
extern "C" fn integer_function(which: u64, x: i64, y: i64) -> i64 {
    let f = ScalarFn::ALL.get(which as usize).copied().unwrap_or(ScalarFn::Add);
    let operands = [Literal::I64(x), Literal::I64(y)];
    f.eval(&operands[..f.arity().min(2)]).and_then(Literal::to_i64).unwrap_or(0)
}

impl Code {
    /// Compiles the units; equal kernels once.
    pub(super) fn new<'k>(
        units: impl IntoIterator<Item = Unit<'k>>,
        features: &Features,
    ) -> Result<Code, CodeError> {
        let failed = |e: &dyn std::fmt::Display| CodeError::Code(e.to_string());
        let mut flags = settings::builder();
        for (name, value) in [("opt_level", "speed"), ("is_pic", "false"), ("enable_verifier", "false")] {
            flags.set(name, value).map_err(|e| failed(&e))?;
        }
        let isa = cranelift_native::builder()
            .map_err(|e| failed(&e))?
            .finish(settings::Flags::new(flags))
            .map_err(|e| failed(&e))?;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        builder.symbol("double_function", double_function as *const u8);
        builder.symbol("integer_function", integer_function as *const u8);
        let mut compiler = Compiler::new(JITModule::new(builder), features)?;
        let mut functions = Vec::new();
        for unit in units {
            functions.push(match unit {
                Unit::Kernel(kernel) => compiler.kernel(kernel)?,
                Unit::Loop(kernel) => compiler.native_loop(kernel, features)?,
            });
        }
        let (mut module, bytes) = (compiler.module, compiler.bytes);
        module.finalize_definitions()?;
        let addresses = functions.iter().map(|f| module.get_finalized_function(*f) as usize).collect();
        Ok(Code { module: Some(module), addresses, bytes })
    }

    /// The address of each unit's function, in the order in which they were given.
    pub(super) fn addresses(&self) -> &[usize] {
        &self.addresses
    }

    /// Bytes of machine code.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes out the module, for its memory to be freed.
    pub(super) fn take_module(&mut self) -> Option<JITModule> {
        self.addresses.clear();
        self.module.take()
    }
}

struct Compiler<'k> {
    module: JITModule,
    /// The functions of kernels.
    known: HashMap<&'k LoopKernel, FuncId>,
    context: Context,
    frontend: FunctionBuilderContext,
    double: FuncId,
    integer: FuncId,
    fused: bool,
    avx512: bool,
    /// Of the code so far.
    bytes: usize,
}

impl<'k> Compiler<'k> {
    fn new(mut module: JITModule, features: &Features) -> Result<Compiler<'k>, CodeError> {
        let mut routine = |name: &str, ty| -> Result<FuncId, CodeError> {
            let mut signature = module.make_signature();
            signature.params = vec![AbiParam::new(types::I64), AbiParam::new(ty), AbiParam::new(ty)];
            signature.returns = vec![AbiParam::new(ty)];
            Ok(module.declare_function(name, Linkage::Import, &signature)?)
        };
        let double = routine("double_function", types::F64)?;
        let integer = routine("integer_function", types::I64)?;
        let context = module.make_context();
        Ok(Compiler {
            module,
            known: HashMap::new(),
            context,
            frontend: FunctionBuilderContext::new(),
            double,
            integer,
            fused: features.fused_multiply_add(),
            // The emitter follows the calling convention of Unix.
            avx512: cfg!(unix)
                && features.instruction_set() == InstructionSet::Avx512
                && avx512::is_supported(),
            bytes: 0,
        })
    }

    /// The function of a kernel.
    fn kernel(&mut self, kernel: &'k LoopKernel) -> Result<FuncId, CodeError> {
        if let Some(known) = self.known.get(kernel) {
            return Ok(*known);
        }
        let id = self.declare()?;
        self.known.insert(kernel, id);
        if let Some(code) = self.avx512.then(|| avx512::emit(kernel)).flatten() {
            self.module.define_function_bytes(id, 64, &code, &[])?;
            self.bytes += code.len();
            self.module.clear_context(&mut self.context);
            return Ok(id);
        }
        let routines = self.routines();
        let mut builder = FunctionBuilder::new(&mut self.context.func, &mut self.frontend);
        emit(&mut builder, kernel, routines, self.fused);
        builder.seal_all_blocks();
        builder.finalize(self.module.target_config());
        self.define(id)
    }

    /// The function of a native loop, after those that it calls.
    fn native_loop(&mut self, kernel: &'k ScanKernel, features: &Features) -> Result<FuncId, CodeError> {
        let mut called = Vec::new();
        for kernel in native::called_kernels(kernel, features) {
            called.push(self.kernel(kernel)?);
        }
        let id = self.declare()?;
        let routines = self.routines();
        let function = &mut self.context.func;
        let called = called.iter().map(|id| self.module.declare_func_in_func(*id, function)).collect();
        let mut builder = FunctionBuilder::new(function, &mut self.frontend);
        native::emit(&mut builder, kernel, called, routines, features);
        builder.seal_all_blocks();
        builder.finalize(self.module.target_config());
        self.define(id)
    }

    fn declare(&mut self) -> Result<FuncId, CodeError> {
        self.context.func.signature.params = vec![AbiParam::new(types::I64); 4];
        Ok(self.module.declare_anonymous_function(&self.context.func.signature)?)
    }

    fn routines(&mut self) -> Routines {
        Routines {
            double: self.module.declare_func_in_func(self.double, &mut self.context.func),
            integer: self.module.declare_func_in_func(self.integer, &mut self.context.func),
        }
    }

    /// Compiles the function that was built.
    fn define(&mut self, id: FuncId) -> Result<FuncId, CodeError> {
        self.module.define_function(id, &mut self.context)?;
        self.bytes += self.context.compiled_code().map_or(0, |code| code.code_buffer().len());
        self.module.clear_context(&mut self.context);
        Ok(id)
    }
}
