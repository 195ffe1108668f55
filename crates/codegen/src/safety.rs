//! Why safe code cannot reach undefined behaviour through this crate. Nothing is defined here: this is the argument that the
//! `SAFETY` comments lean on, in one place.
//!
//! **Who can do harm.** Generated machine code, OpenCL kernels, and the kernels of matrix products, convolutions and random numbers read
//! and write through pointers and check nothing. Files with `unsafe` code are few and named in `docs/architecture.md`; the
//! compiler denies it elsewhere. So what has to be shown is that whatever a caller of safe functions gives, these pointers
//! lead to memory that is there, that is as large as code takes it to be, and that nobody else touches meanwhile.
//!
//! **What code relies on is checked, not assumed.** A [`Program`] is plain data that anyone can put together.
//! [`Plan::new`] and [`OpenClProgram::new`] run [`verify()`] on it before anything is generated, also where the compiler
//! has just done so: every address lies inside its parameter for all iterations, run-time starts and checked indices;
//! elements have the types of their parameters; only what is said to be written is written; buffers at one place are alike;
//! arena buffers lie in the arena; what a step writes it does not read, but for elements that an iteration reads and then
//! writes itself; the body of a scan finds each of its buffers, in each step, inside a parameter. Element counts and
//! addresses are computed with checks or in wider integers, so extents that wrap around are refused, not believed.
//!
//! **Memory is as large as the program says.** The arena, packed matrices and scratch memory belong to the [`CpuProgram`] and
//! are asked for with [`Array::zeros`]; sizes that do not fit in a `usize` saturate, so that the request fails. Arrays of a
//! call are compared with the program's buffers, type and number of elements, at every call, before the first pointer is
//! used; [`Array`] keeps as many bytes as its shape says. Pointers of one call are never followed by a later one: all of
//! them are set anew. On a device every copy, and every buffer of a launch, is compared with the size of its memory.
//!
//! **Indices that only a run knows.** A body may use a value as an address only through [`Instruction::Index`], which code
//! compares with the extent and replaces by 0 where it is out of range; `verify` computes the reach from that extent. Run-time
//! starts are compared with their limit before the kernel's first access, and the kernel is left where one is out of range.
//! Code follows the definitions in [`kernel::reference`](crate::kernel::reference), with which every engine is compared.
//!
//! **No element is touched by two threads.** Parts of a loop kernel are ranges of its outermost axis, if that is kept; kept
//! iterations write distinct elements (`verify`), and kernels that write one element after another are not divided. Parts of
//! a product or convolution write disjoint regions of its result, whose elements are distinct (`verify`), those of a packing disjoint panels, and
//! those of random numbers disjoint blocks. Scratch memory and reports are one for each thread; [`Pool::run`] gives no two parts
//! at work the same number, and returns only when every worker has left, also where a part panics.
//!
//! **Nobody outside sees memory change.** A call borrows the program mutably, inputs immutably, results mutably, and shared variables through their
//! locks, each once; so an input can be neither a result nor a variable. Inputs and constants are never written
//! (`verify`). Results are borrowed from their function until the next call of it.
//!
//! **Functions are those of their steps.** What is called for a step, and on which pointers, is numbered in the [`Plan`], which
//! checks that each function computes the kernel of every step that it runs and that every pointer is set; loading binds one
//! address to each number.
//!
//! **Code lives as long as it runs.** Functions are called only by [`CpuProgram::run`], on a mutable borrow of the value that
//! owns their code, and have returned before it does. Their memory is freed when the value is dropped, or when its making fails.
//! A program that is taken out of a function's cache is dropped by the owner of the function, who cannot be in a call then,
//! and whose results nobody borrows.
//!
//! **Threads.** [`CpuProgram`] is `Send`, since its pointers lead into memory that it owns or were set by the call that reads
//! them; it is not `Sync`. The wrappers that are `Sync` (pointers of a step, operands of a product) live for one [`Pool::run`].
//!
//! **Instruction sets.** [`Features`] can only be detected or restricted, never extended, and AVX-512 code is emitted only
//! where the processor has what the emitter uses.
//!
//! **What is trusted** are Cranelift, the assembler of the AVX-512 emitter (whose encodings are tested one by one), the
//! OpenCL driver, and the operating system.
//!
//! A value overwritten while a later step needs it would be a wrong number and no undefined behaviour, since arena memory is
//! always initialised; that it does not happen is for [`crate::place`] to see to, and random programs' to test.
//!
//! [`Program`]: crate::kernel::Program
//! [`Plan`]: crate::cpu::Plan
//! [`Plan::new`]: crate::cpu::Plan::new
//! [`CpuProgram`]: crate::cpu::call::CpuProgram
//! [`CpuProgram::run`]: crate::cpu::call::CpuProgram::run
//! [`OpenClProgram::new`]: crate::opencl::OpenClProgram::new
//! [`verify()`]: crate::kernel::verify::verify
//! [`Array`]: hypatia_graph::Array
//! [`Array::zeros`]: hypatia_graph::Array::zeros
//! [`Instruction::Index`]: crate::kernel::Instruction::Index
//! [`Pool::run`]: hypatia_kernels::pool::Pool::run
//! [`Features`]: hypatia_kernels::features::Features
