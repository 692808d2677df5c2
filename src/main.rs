//! Hands the arguments to `cli` and turns its result into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    gaggle::cli::run(std::env::args_os())
}
