//! Verbs for people and operators: parse, call, print.

mod args;
mod failure;
mod harmless;
mod output;
mod profile;
