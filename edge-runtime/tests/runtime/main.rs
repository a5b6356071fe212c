//! The engine from outside: every primitive and random networks beside a naive interpreter.

mod agreement;
mod naive;
mod random;
