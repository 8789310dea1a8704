//! Fault tolerance for futures: who ends, and who hears of it.
//!
//! A [`Device`] is a future's connection to the mesh, a [`Line`] its address. Devices are [linked](LinkMode) into
//! whatever topology there is, and [`Device::manage`] runs any future so that a panic is a value and every linked device
//! hears of the end, exactly once. On any executor, or none; without `unsafe`; nothing is spawned or timed here.
//!
//! ```
//! # use std::{convert::Infallible, pin::pin, task::{Context, Poll, Waker}};
//! use backplane::{Crash, Device, LinkMode};
//!
//! let (server, client) = (Device::new(), Device::new());
//! server.link(&client, LinkMode::Peer);
//!
//! let server = server.manage(async { panic!("out of beans") as Result<(), Infallible> });
//! let client = client.manage(std::future::pending::<Result<(), Infallible>>());
//! # let mut cx = Context::from_waker(Waker::noop());
//! # let Poll::Ready(server) = pin!(server).poll(&mut cx) else { panic!() };
//! # let Poll::Ready(client) = pin!(client).poll(&mut cx) else { panic!() };
//! # let _ = "
//! let (server, client) = join(server, client).await;
//! # ";
//!
//! assert!(matches!(server, Err(Crash::Panic(panic)) if panic.message() == Some("out of beans")));
//! assert!(matches!(client, Err(Crash::Cascade(news)) if news.exit.to_string() == "panicked: out of beans"));
//! ```
//!
//! # What holds
//!
//! - Every watcher hears of every ending exactly once, whatever the race between link, unlink and end.
//! - Links are total: a device that has ended answers at once, as [`Gone`](FaultKind::Gone).
//! - After [`unlink`](Device::unlink) has returned, no news of that link arrives. News that was queued before stays,
//!   unless it is [flushed](Device::flush).
//! - News of one device arrives in the order in which it was sent.
//! - A future under [`manage`](Device::manage), and all it held, is dropped before anyone hears of its end.
//! - Ids are never reused, and news of an end cannot be made up.
//! - Linking and unlinking take constant time, whether a device has one link or a million. It is amortised: a link of
//!   the owner's first looks at the news and the changes of others that have come since it last looked.
//! - Memory does not grow with links that are gone. A device's shared half takes 128 bytes, which are used again and
//!   never given back; a table of links that was long once gives its memory back when its last link is gone.
//! - All of this is for devices that end. One that is leaked, by `mem::forget` or a cycle of reference counts, never
//!   does.
//!
//! # Features
//!
//! - `stream`: news as a `Stream`.
//! - `smol`, `tokio`: adapters for [`Runtime`].
//!
//! # `panic = "abort"`
//!
//! There a panic is the end of the process, so no watcher hears of it. Errors, drops, cascades and shutdowns are told as ever.

mod device;
mod exit;
mod id;
mod inbox;
mod label;
mod line;
mod link;
mod manage;
mod queue;
pub mod runtime;
mod slot;
mod sync;
mod table;
mod unwind;

pub use device::Device;
#[cfg(feature = "stream")]
pub use device::News;
pub use exit::{Crash, Disconnect, Exit, Fault, FaultKind, FirstCause, Message};
pub use id::DeviceId;
pub use inbox::Inbox;
pub use label::Label;
pub use line::{End, Line};
pub use link::{Link, LinkMode, OnFault, OnShutdown};
pub use manage::{Manage, PartManage, Watch, Watched};
pub use runtime::Runtime;
pub use unwind::{Panic, PanicLocation, catch, catch_panic_locations};
