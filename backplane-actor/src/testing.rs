//! For your own tests: an executor whose every run can be had again, with a clock of its own, and an actor that expects.
//! Feature `testing`.
//!
//! ```
//! use backplane_actor::{System, testing::{Probe, Seeded, under_seeds}};
//! use std::time::Duration;
//!
//! under_seeds(0..20, |runtime: &Seeded| {
//!     let system = System::new(runtime.clone());
//!     let mut probe = Probe::<u32>::new(&system);
//!     let address = probe.address().clone();
//!     let echo = system.spawn(move |mut mailbox: backplane_actor::Mailbox<u32>| async move {
//!         while let Some(n) = mailbox.receive().await {
//!             address.cast(n + 1).await.unwrap();
//!         }
//!     });
//!     runtime.run(async move {
//!         echo.cast(1).await.unwrap();
//!         assert_eq!(probe.expect(Duration::from_secs(1)).await, 2);
//!         probe.expect_nothing(Duration::from_secs(60)).await; // which takes no time
//!     });
//! });
//! ```

mod probe;
mod seeded;

pub use probe::Probe;
pub use seeded::{Seeded, Sleep, Task, under_seeds};
