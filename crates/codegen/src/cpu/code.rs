//! Machine code for the functions of a plan, in executable memory of its own.

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, FuncRef, Type, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError};
use hypatia_graph::math::{Integers, PlainDouble, PlainInteger};
use hypatia_graph::scalar::Applied;
use hypatia_graph::{Broken, DType, ScalarFn, broken};

use crate::cpu::avx512;
use crate::cpu::emit::{Routines, emit};
use crate::cpu::native;
use crate::cpu::plan::{Function, FunctionId, Inline, Plan};
use crate::kernel::{Kernel, LoopKernel, ScanKernel};
use hypatia_kernels::features::{Features, InstructionSet};

/// The functions of a plan, compiled. The addresses stay valid until the module is taken out.
pub(super) struct Code {
    module: Option<JITModule>,
    addresses: Vec<*const u8>,
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
    /// Out of memory for temporaries.
    #[error("out of memory: temporaries need {0} bytes")]
    Memory(usize),
}

impl From<ModuleError> for CodeError {
    fn from(error: ModuleError) -> CodeError {
        CodeError::Code(format!("{error:?}"))
    }
}

/// A double-precision function by its number in [`ScalarFn`].
extern "C" fn double_function(which: u64, x: f64, y: f64) -> f64 {
    // Code passes numbers of the list, of functions from floats to floats.
    match ScalarFn::ALL.get(which as usize).and_then(|f| f.on_doubles(&mut PlainDouble, x, y)) {
        Some(Applied::Float(value)) => value,
        Some(Applied::Truth(_)) | None => f64::NAN,
    }
}

/// `x` to the power of a `y` that is not negative.
extern "C" fn natural_power(x: i64, y: i64) -> i64 {
    PlainInteger(DType::I64).natural_power(x, y)
}

impl Code {
    /// Compiles the functions of a plan.
    pub(super) fn new(plan: &Plan) -> Result<Code, CodeError> {
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
        builder.symbol("natural_power", natural_power as *const u8);
        let mut compiler = Compiler::new(JITModule::new(builder), &plan.features)?;
        let steps = plan.program.all_steps();
        for (index, function) in plan.functions.iter().enumerate() {
            let (Function::Kernel(step) | Function::Scan(step, _)) = function;
            match (function, &steps[*step].1.kernel) {
                (Function::Kernel(_), Kernel::Loop(kernel)) => compiler.kernel(kernel)?,
                (Function::Scan(_, body), Kernel::Scan(kernel)) => compiler.native_scan(kernel, body)?,
                (_, kernel) => return Err(broken!("a kernel that f{index} can be of", kernel).into()),
            }
        }
        let Compiler { mut module, functions, bytes, .. } = compiler;
        module.finalize_definitions()?;
        let addresses = functions.iter().map(|function| module.get_finalized_function(*function)).collect();
        Ok(Code { module: Some(module), addresses, bytes })
    }

    /// The address of each function of the plan.
    pub(super) fn addresses(&self) -> &[*const u8] {
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

struct Compiler {
    module: JITModule,
    /// Those of the plan so far.
    functions: Vec<FuncId>,
    context: Context,
    frontend: FunctionBuilderContext,
    double: FuncId,
    power: FuncId,
    fused: bool,
    avx512: bool,
    /// Of the code so far.
    bytes: usize,
}

impl Compiler {
    fn new(mut module: JITModule, features: &Features) -> Result<Compiler, CodeError> {
        let mut routine = |name: &str, params: &[Type], result| -> Result<FuncId, CodeError> {
            let mut signature = module.make_signature();
            signature.params = params.iter().map(|ty| AbiParam::new(*ty)).collect();
            signature.returns = vec![AbiParam::new(result)];
            Ok(module.declare_function(name, Linkage::Import, &signature)?)
        };
        let double = routine("double_function", &[types::I64, types::F64, types::F64], types::F64)?;
        let power = routine("natural_power", &[types::I64, types::I64], types::I64)?;
        let context = module.make_context();
        Ok(Compiler {
            module,
            functions: Vec::new(),
            context,
            frontend: FunctionBuilderContext::new(),
            double,
            power,
            fused: features.fused_multiply_add(),
            // The emitter follows the calling convention of Unix.
            avx512: cfg!(unix)
                && features.instruction_set() == InstructionSet::Avx512
                && avx512::is_supported(),
            bytes: 0,
        })
    }

    /// The function of a kernel.
    fn kernel(&mut self, kernel: &LoopKernel) -> Result<(), CodeError> {
        let id = self.declare()?;
        let code = if self.avx512 {
            avx512::emit(kernel).map_err(|broken| broken.with_input(kernel))?
        } else {
            None
        };
        if let Some(code) = code {
            self.module.define_function_bytes(id, 64, &code, &[])?;
            self.bytes += code.len();
            self.module.clear_context(&mut self.context);
            return Ok(());
        }
        let routines = self.routines();
        let mut builder = FunctionBuilder::new(&mut self.context.func, &mut self.frontend);
        emit(&mut builder, kernel, routines, self.fused).map_err(|broken| broken.with_input(kernel))?;
        builder.seal_all_blocks();
        builder.finalize(self.module.target_config());
        self.define(id)
    }

    /// The function of a native scan.
    fn native_scan(&mut self, kernel: &ScanKernel, body: &[Inline]) -> Result<(), CodeError> {
        let id = self.declare()?;
        let routines = self.routines();
        let mut called = HashMap::new();
        self.declare_called(body, &mut called);
        let mut builder = FunctionBuilder::new(&mut self.context.func, &mut self.frontend);
        native::emit(&mut builder, kernel, body, &called, routines, self.fused)
            .map_err(|broken| broken.with_input(kernel))?;
        builder.seal_all_blocks();
        builder.finalize(self.module.target_config());
        self.define(id)
    }

    /// Declares the next function of the plan.
    fn declare(&mut self) -> Result<FuncId, CodeError> {
        self.context.func.signature.params = vec![AbiParam::new(types::I64); 4];
        let id = self.module.declare_anonymous_function(&self.context.func.signature)?;
        self.functions.push(id);
        Ok(id)
    }

    /// Declares the functions that the present one calls.
    fn declare_called(&mut self, body: &[Inline], called: &mut HashMap<FunctionId, FuncRef>) {
        for inline in body {
            match inline {
                Inline::Call(id) => {
                    let function = self.functions[id.0];
                    let declare = || self.module.declare_func_in_func(function, &mut self.context.func);
                    called.entry(*id).or_insert_with(declare);
                }
                Inline::Scan(body) => self.declare_called(body, called),
                Inline::Kernel { .. } | Inline::Product { .. } => {}
            }
        }
    }

    fn routines(&mut self) -> Routines {
        Routines {
            double: self.module.declare_func_in_func(self.double, &mut self.context.func),
            power: self.module.declare_func_in_func(self.power, &mut self.context.func),
        }
    }

    /// Compiles the function that was built.
    fn define(&mut self, id: FuncId) -> Result<(), CodeError> {
        self.module.define_function(id, &mut self.context)?;
        let code = self.context.compiled_code().ok_or_else(|| broken!("code of a compiled function"))?;
        self.bytes += code.code_buffer().len();
        self.module.clear_context(&mut self.context);
        Ok(())
    }
}
