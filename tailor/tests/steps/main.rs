//! Whole training steps through the functions training itself uses: against PyTorch's, and on any number of
//! threads.

mod cases;
mod device;
mod golden;
mod networks;
mod threads;
