//! The `hypatia` program.

fn main() -> std::process::ExitCode {
    hypatia_models::program::run(std::env::args_os())
}
