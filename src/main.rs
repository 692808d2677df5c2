//! Hands the arguments to `cli` and turns its result into an exit status.

fn main() {}
