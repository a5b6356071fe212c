//! Whole bundles: round trips, damage at every byte, and attacks.

mod attacks;
mod bombs;
mod damage;
mod round_trip;
