//! Verbs for people and operators: parse, call, print.
