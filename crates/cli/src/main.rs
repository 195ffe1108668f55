//! The `hypatia` program.

fn main() -> std::process::ExitCode {
    hypatia_cli::commands::run(std::env::args_os())
}
