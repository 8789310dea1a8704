//! Stories across crates and executors: the harness that they run in.

pub mod gate;
pub mod plan;
pub use backplane_actor::testing as seeded;
pub mod threads;
pub mod workspace;

/// What the documents say is run: each block of Rust in them is a test.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    mod readme {}

    #[doc = include_str!("../../ARCHITECTURE.md")]
    mod architecture {}

    #[doc = include_str!("../../DESIGN.md")]
    mod design {}

    #[doc = include_str!("../../CHANGELOG.md")]
    mod changelog {}

    #[doc = include_str!("../../CONTRIBUTING.md")]
    mod contributing {}
}
