//! Device profiles (to come with the first target).
