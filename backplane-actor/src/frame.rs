//! Who runs on this thread at this moment: whose calls these are, and how much time they have.

use std::{
    any::Any,
    cell::RefCell,
    mem, ptr,
    time::{Duration, Instant},
};

use backplane::{DeviceId, Exit, Message, catch};

use crate::{clock::Clock, name::ActorName, sync::Arc};

/// An actor, whatever its messages: for whoever runs it, and for whoever asks whom it waits for.
pub(crate) trait Node: Send + Sync {
    fn name(&self) -> &ActorName;
    /// It calls somebody; a number for that, and the call that it handles meanwhile.
    fn begin_wait(&self, callee: Arc<dyn Node>) -> (u64, Option<Arc<dyn CallState>>);
    /// It has heard, or does not wait any more.
    fn end_wait(&self, number: u64);
    /// Whom it has called and not heard from.
    fn waits_for(&self) -> Vec<Arc<dyn Node>>;
    /// What a message of the mesh means to it; an exit, if this is the end.
    fn hear(&self, me: DeviceId, message: Message) -> Option<Exit>;
    fn asked_to_stop(&self) -> Option<Exit>;
    /// It is known how this incarnation ends; what it held is not yet dropped.
    fn ending(&self, me: DeviceId, exit: &Exit);
    /// All that this incarnation held has been dropped.
    fn ended(&self, me: DeviceId, exit: &Exit);
    fn is_ending(&self) -> bool;
    /// What measures its polls, if something does.
    fn watch(&self) -> Option<Arc<Clock>>;
    fn was_busy(&self, time: Duration);
    /// Shows the calls whose time is not counted yet, and maybe others. For the next one the clock is told again.
    fn show_calls(&self, calls: &mut Vec<Arc<dyn CallState>>);
    /// The clock that was told of them is told again.
    fn forget_clock(&self);
    /// How many messages it has handled.
    #[cfg(feature = "metrics")]
    fn handled(&self) -> u64;
}

/// A call, for whoever does not know what it returns.
pub(crate) trait CallState: Send + Sync {
    /// Nobody waits for it any more.
    fn is_over(&self) -> bool;
    /// It has its answer, or will not have one.
    fn is_settled(&self) -> bool;
    /// Its reply has been sent, or dropped: whoever handled it does something else from there on.
    fn is_answered(&self) -> bool;
    /// It waits, and the clock has yet to count its time.
    fn is_fresh(&self) -> bool;
    /// Until when its caller waits, if there is a limit; where its time is not counted yet, a tick less than it will be, at most.
    /// `now` is asked only where it has to be.
    fn deadline(&self, now: &mut dyn FnMut() -> Instant) -> Option<Instant>;
    /// From now on its time is counted: it waits until then, and has this name in the clock. `false`, if it does not wait, or
    /// its time is counted already.
    fn counts(&self, until: Instant, name: u32) -> bool;
    /// Its time is up.
    fn expire(&self);
    /// There will be no answer; with `exit`, because the actor has ended.
    fn settle(&self, exit: Option<&Exit>);
}

/// What an actor takes along from poll to poll. In a box: it is put into the thread and taken out again at each, and a small
/// process's task on tokio stays below the next step of its size.
pub(crate) struct Frame {
    pub(crate) node: Arc<dyn Node>,
    /// It is there for a moment, and seldom.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    /// Calls whose reply was dropped here: what their callers are told depends on what comes next.
    dropped: Vec<Arc<dyn CallState>>,
    /// What is left of the actor, when its work has panicked.
    survivor: Option<Box<dyn Any + Send>>,
}

impl Frame {
    pub(crate) fn new(node: Arc<dyn Node>) -> Frame {
        Frame { node, rare: None }
    }

    /// A reply was dropped here.
    pub(crate) fn dropped(&mut self, call: Arc<dyn CallState>) {
        self.rare.get_or_insert_default().dropped.push(call);
    }

    /// Callers whose replies were dropped are told: how it ended, or that there is no answer.
    pub(crate) fn settle(&mut self, exit: Option<&Exit>) {
        // While it ends, what was dropped waits until it is known how.
        if self.rare.is_some() && (exit.is_some() || !self.node.is_ending()) {
            for call in self.rare.take().into_iter().flat_map(|rare| rare.dropped) {
                // A waker may panic.
                drop(catch(|| call.settle(exit)));
            }
        }
    }
}

#[cfg(not(backplane_loom))]
thread_local! {
    static FRAME: RefCell<Option<Box<Frame>>> = const { RefCell::new(None) };
}

// Loom's threads share one of the system's.
#[cfg(backplane_loom)]
loom::thread_local! {
    static FRAME: RefCell<Option<Box<Frame>>> = RefCell::new(None);
}

fn swap(frame: &mut Option<Box<Frame>>) {
    // A thread that is ending has no frames; then nothing is inherited.
    let _ = FRAME.try_with(|place| {
        if let Ok(mut place) = place.try_borrow_mut() {
            mem::swap(&mut *place, frame);
        }
    });
}

/// Runs `f` in a frame. `f` must not unwind.
pub(crate) fn within<T>(frame: &mut Option<Box<Frame>>, f: impl FnOnce() -> T) -> T {
    swap(frame);
    let value = f();
    swap(frame);
    value
}

/// What is asked of the frame of this thread, if there is one.
pub(crate) fn with<T>(f: impl FnOnce(&mut Frame) -> T) -> Option<T> {
    FRAME.try_with(|place| place.try_borrow_mut().ok()?.as_deref_mut().map(f)).ok().flatten()
}

/// Keeps what is left of this actor, if it is the one that runs on this thread; or gives it back.
pub(crate) fn survive(node: usize, left: Box<dyn Any + Send>) -> Option<Box<dyn Any + Send>> {
    let mut left = Some(left);
    with(|frame| {
        if Arc::as_ptr(&frame.node).cast::<()>().addr() == node {
            frame.rare.get_or_insert_default().survivor = left.take();
        }
    });
    left
}

/// What is left of the actor that runs on this thread.
pub(crate) fn survivor() -> Option<Box<dyn Any + Send>> {
    with(|frame| frame.rare.as_mut()?.survivor.take()).flatten()
}

pub(crate) fn same(a: &Arc<dyn Node>, b: &Arc<dyn Node>) -> bool {
    ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// The way from `callee` back to `caller`, along those who wait for one another.
pub(crate) fn cycle(caller: &Arc<dyn Node>, callee: &Arc<dyn Node>) -> Option<Vec<ActorName>> {
    let mut seen = vec![(Arc::clone(callee), usize::MAX)];
    let mut next = 0;
    while next < seen.len() {
        let node = Arc::clone(&seen[next].0);
        if same(&node, caller) {
            let mut way = vec![caller.name().clone()];
            let mut at = seen[next].1;
            while let Some((node, before)) = seen.get(at) {
                way.push(node.name().clone());
                at = *before;
            }
            // From the caller to the callee, on to whoever waits for the caller, and there again.
            way.push(caller.name().clone());
            way.reverse();
            return Some(way);
        }
        for waits_for in node.waits_for() {
            if !seen.iter().any(|(known, _)| same(known, &waits_for)) {
                seen.push((waits_for, next));
            }
        }
        next += 1;
    }
    None
}
