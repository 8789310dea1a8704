//! State behind a mailbox: typed actors on the mesh.

mod groups;
mod registry;
mod router;
mod statem;
mod timer;
