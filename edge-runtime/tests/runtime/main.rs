//! The engine from outside: random networks compared with a naive interpreter, tasks in their slots, and the
//! command line.

mod again;
mod agreement;
mod border;
mod budget;
mod busy;
mod command;
mod damaged;
mod gate;
mod half;
mod int8;
mod loading;
mod mixed_up;
mod naive;
mod output;
mod random;
mod rounded;
mod sizes;
mod slots;
mod store;
