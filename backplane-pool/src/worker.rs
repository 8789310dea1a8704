//! A worker: one thread of a domain, and what it does next.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crossbeam_deque::{Steal, Worker};

use crate::{
    domain::{Domain, Phase, Remote, Unlisted},
    idle::Woken,
    pin::current_cpu,
    reactor::Reactor,
    registry::{Key, Shard, Site},
    task::{Runnable, Since, Told, drop_untold, since},
};

/// So often in a row a task may run next because the one before has woken it. Then others have their turn.
const STREAK: u32 = 16;
/// So often in a turn a task may run before others that wait, and set nothing going. One that awaits many would else be woken by
/// each of them for nothing; at the end of the queue it finds them all done.
const IDLE_JUMPS: u32 = 8;
/// Every so many polls something from outside is taken, whatever waits here.
const OUTSIDE: u32 = 61;
/// Work of so many nanoseconds is worth waking another worker for: half as much again as a round trip to a sleeping thread costs.
const WAKE_NANOS: u32 = 70_000;
/// So long at most a worker that has nothing to do lets little work gather before it takes some from another. What it takes has to
/// move to its CPU, and a sender that finds its receivers awake need not wake them.
const GATHER: Duration = Duration::from_micros(4);
/// After so long it looks whether there is more by now. What becomes less is taken at once: to wait for nothing costs CPU.
const GATHER_STEP: Duration = Duration::from_micros(1);
/// After so many polls, work that is still waiting is offered to those who sleep.
const BACKLOG: u32 = 8;
/// So many tasks that a poll spawns in a pool that has ended are dropped at once.
const REFUSALS: u32 = 64;
/// So many pairs of sites are remembered as known to the house.
const KNOWN: usize = 32;
/// How long a turn should be: between two turns events and timers are looked at.
const TURN: Duration = Duration::from_micros(250);
/// The fewest and the most polls of a turn.
const TURN_POLLS: (u32, u32) = (8, 256);

/// The half of a worker that its thread keeps to itself.
pub(crate) struct Local {
    /// Its place among the workers of its domain.
    pub(crate) index: usize,
    pub(crate) domain: Arc<Domain>,
    pub(crate) remote: Arc<Remote>,
    deque: Worker<Runnable>,
    /// Gone when the thread has run its last task.
    reactor: RefCell<Reactor>,
    /// Tasks that no other worker may run.
    pinned: RefCell<VecDeque<Runnable>>,
    /// What one poll has spawned where nothing is taken any more, beyond [`REFUSALS`].
    refused: RefCell<Vec<Runnable>>,
    state: State,
}

/// What changes with every poll.
#[derive(Debug, Default)]
struct State {
    /// Whether the slot may hold something.
    has_next: Cell<bool>,
    streak: Cell<u32>,
    /// The task that was taken last has run before others, and has scheduled nothing so far.
    jumped: Cell<bool>,
    idle_jumps: Cell<u32>,
    tick: Cell<u32>,
    turn: Cell<u32>,
    pinned_waits: Cell<bool>,
    pinned_turn: Cell<bool>,
    /// Inside `poll`; outside, the thread waits or turns the reactor.
    polling: Cell<bool>,
    refusals: Cell<u32>,
    searching: Cell<bool>,
    asleep_since: Cell<Option<Instant>>,
    /// When it woke up for the turn that comes.
    woke: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    dropping: Cell<bool>,
    /// Has woken what others have written down.
    helped: Cell<bool>,
    random: Cell<u32>,
    /// How long a poll takes, of late; the greatest number as long as there was none.
    poll_nanos: Cell<u32>,
    /// For how long something has been waiting in the queue, by whole turns.
    backlog_nanos: Cell<u32>,
    known: [[Cell<[usize; 2]>; 2]; KNOWN],
    /// Of the task that is being polled.
    site: Cell<Option<Site>>,
}

impl Local {
    pub(crate) fn new(
        index: usize,
        domain: Arc<Domain>,
        remote: Arc<Remote>,
        deque: Worker<Runnable>,
        reactor: Reactor,
    ) -> Local {
        let state = State::default();
        state.turn.set(64);
        state.poll_nanos.set(u32::MAX);
        state.random.set(index as u32 * 2 + 1);
        let (reactor, pinned, refused) = (reactor.into(), RefCell::default(), RefCell::default());
        Local { index, domain, remote, deque, reactor, pinned, refused, state }
    }

    /// Runs a future on this thread, and waits in what this worker waits in.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let reactor = self.reactor.borrow().clone();
        reactor.block_on(future)
    }

    /// Nothing of a ring is left for when the thread takes its own things down.
    pub(crate) fn leave_reactor(&self) {
        let _ring = self.reactor.replace(Reactor::AsyncIo);
    }

    /// The shard of the tasks that this worker spawns.
    #[inline]
    pub(crate) fn shard(&self) -> &Shard {
        &self.domain.shards[self.index]
    }

    /// A task that waits for the first time is on the list from now on.
    pub(crate) fn write_down(&self, waker: &Waker) -> Option<Key> {
        let key = self.shard().insert(waker, self.state.site.get()?.into());
        match key {
            Some(_) => self.remote.is_listed(),
            // Too late to wait: it is dropped in its next turn.
            None => waker.wake_by_ref(),
        }
        key
    }

    /// Takes a task that was woken or spawned on this thread.
    #[inline]
    pub(crate) fn schedule(&self, runnable: Runnable, woken_while_running: bool) {
        self.state.jumped.set(false);
        if let Some(pinned) = runnable.metadata().pinned {
            self.schedule_pinned(runnable, pinned.worker());
        } else if woken_while_running {
            // It asks for another turn, so everybody else has theirs before.
            self.share(runnable);
        } else if self.state.idle_jumps.get() >= IDLE_JUMPS && !self.deque.is_empty() {
            self.share(runnable);
        } else {
            self.state.has_next.set(true);
            if let Some(before) = self.remote.next.put(runnable) {
                self.share(before);
            }
        }
        if !self.state.polling.get() {
            self.stop_waiting();
        }
    }

    /// Whether anything waits here for its turn, as far as can be seen at a glance.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.state.has_next.get() || self.state.pinned_waits.get() || !self.deque.is_empty()
    }

    fn share(&self, runnable: Runnable) {
        self.deque.push(runnable);
        if self.domain.idle.is_anybody_to_wake() && self.is_worth_a_wake() {
            self.domain.idle.hint();
        }
    }

    /// Whether what waits here would, by what polls took lately, take longer than it takes another worker to wake up. A worker
    /// that has polled nothing yet thinks so. If it is wrong, and one poll is long after many short ones, the watch sees that.
    fn is_worth_a_wake(&self) -> bool {
        self.is_worth(self.deque.len())
    }

    fn is_worth(&self, waiting: usize) -> bool {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        waiting.saturating_mul(self.state.poll_nanos.get()) >= WAKE_NANOS
    }

    /// After a turn: what has been waiting without a break for as long as it takes to wake somebody, would go on to.
    fn call_for_help(&self, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        let waited = self.state.backlog_nanos.get().saturating_add(took);
        let enough = waited >= WAKE_NANOS && !self.deque.is_empty();
        self.state.backlog_nanos.set(if enough { 0 } else { waited });
        if enough {
            self.domain.idle.hint();
        }
    }

    /// So many polls have taken so long.
    fn learn(&self, polls: u32, took: Duration) {
        if let Some(each) = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).checked_div(polls) {
            let before = self.state.poll_nanos.get();
            self.state.poll_nanos.set(if before == u32::MAX { each } else { before - before / 4 + each / 4 });
        }
    }

    #[cold]
    fn schedule_pinned(&self, runnable: Runnable, worker: usize) {
        if worker == self.index {
            self.pinned.borrow_mut().push_back(runnable);
            self.state.pinned_waits.set(true);
        } else if let Some(remote) = self.domain.remotes().get(worker) {
            drop(remote.inbox.push(runnable));
            self.domain.idle.rouse(worker);
        }
    }

    /// An event has come in while this thread was turning the reactor: it has work now. If it does not sleep, it knows.
    #[cold]
    fn stop_waiting(&self) {
        if self.wake_up_for_a_turn() {
            // It is the reactor's, and comes back to nothing of ours.
            if let Some(waker) = &*self.state.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Runs tasks until the pool has ended and all its tasks are gone.
    pub(crate) async fn run(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Runs tasks until `future` is ready: for a task that blocks on it, on this thread.
    pub(crate) async fn run_until<F: Future>(&self, future: F) -> F::Output {
        /// Whoever was to wake this worker, meant the one that goes on.
        struct Leave<'a>(&'a Local, Option<Site>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.wake_up();
                self.0.state.woke.set(None);
                self.0.stop_searching();
                self.0.state.polling.set(true);
                self.0.remote.unblocks();
                self.0.state.site.set(self.1);
            }
        }
        self.remote.blocks();
        let _leave = Leave(self, self.state.site.get());
        let _told = Told::new();
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            self.state.polling.set(true);
            // It is awake, as its watch is to know; and whoever woke it for some work meant one that looks for it now.
            self.wake_up();
            self.stop_searching();
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => Poll::Ready(value),
                Poll::Pending => {
                    // When all tasks are gone, as in a hook or the destructor of what is no task, this one waits alone.
                    let (Poll::Ready(()) | Poll::Pending) = self.poll(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.polling.set(true);
        self.wake_up_for_a_turn();
        let polled = self.turn(cx);
        if polled.is_pending() {
            let mut waker = self.state.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        self.state.polling.set(false);
        polled
    }

    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.state.turn.get();
        let begin = self.state.woke.take().unwrap_or_else(Instant::now);
        self.state.idle_jumps.set(0);
        let mut polls = 0;
        while polls < turn {
            if self.state.refusals.get() > 0 {
                self.drop_refused();
            }
            if self.domain.house.phase() == Phase::Dropping {
                return self.poll_dropping(cx);
            }
            let Some(runnable) = self.find() else {
                let now = Instant::now();
                if self.sleep(cx, now) {
                    self.learn(polls, now - begin);
                    self.look_where_we_are(polls);
                    return Poll::Pending;
                }
                continue;
            };
            self.stop_searching();
            // What has not been taken care of by now is worth waking somebody for.
            if polls % BACKLOG == BACKLOG - 1
                && self.domain.idle.is_anybody_to_wake()
                && self.is_worth_a_wake()
            {
                self.domain.idle.hint();
            }
            self.run_one(runnable);
            polls += 1;
        }
        self.look_where_we_are(polls);
        // Long polls make short turns.
        let took = begin.elapsed();
        self.learn(polls, took);
        self.call_for_help(took);
        let (fewest, most) = TURN_POLLS;
        self.state.turn.set(if took > TURN { (turn / 2).max(fewest) } else { (turn + turn / 4).min(most) });
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[inline]
    fn run_one(&self, runnable: Runnable) {
        let meta = runnable.metadata();
        let polled = meta.begin_poll();
        self.know(meta.site);
        self.state.site.set(Some(meta.site));
        self.remote.polls(polled);
        self.remote.counters.polls.add(1);
        if backplane::catch(|| runnable.run()).is_err() {
            self.lose();
        }
        self.remote.polls_nothing();
        let since = since();
        if since != Since::default() {
            self.heard(since);
        }
    }

    /// Takes a task that nobody will run, and drops it: at once, but for a poll that goes on and on. One that starts again whatever
    /// has ended would do so forever, and its own end would never come; what it spawns ends after the poll.
    #[cold]
    pub(crate) fn refuse(&self, runnable: Runnable) {
        let refusals = self.state.refusals.get() + 1;
        if self.state.polling.get() && refusals > REFUSALS {
            self.refused.borrow_mut().push(runnable);
        } else {
            self.state.refusals.set(refusals);
            drop_untold(runnable);
        }
    }

    #[cold]
    fn drop_refused(&self) {
        self.state.refusals.set(0);
        // Destructors may spawn again; that is for the next time.
        self.refused.take().into_iter().for_each(drop_untold);
    }

    /// Sites that were seen lately are known to the house.
    #[inline]
    fn know(&self, site: Site) {
        let words = site.words();
        // One place in the source may spawn many types, so both words choose; and two that meet do not drive each other out.
        let mixed = (words[0] ^ words[1].rotate_left(usize::BITS / 2))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
        let [first, second] = &self.state.known[mixed >> (usize::BITS - KNOWN.ilog2())];
        if first.get() != words && second.get() != words {
            second.set(first.replace(words));
            self.domain.house.know(site);
        }
    }

    /// A task is dropped where it may be: on a worker of its domain, and a pinned one on its own.
    fn discard(&self, runnable: Runnable) {
        let meta = runnable.metadata();
        let (site, polled) = (meta.site, meta.polled());
        // Not by what this worker knows: that is for polls, and lies in their way.
        self.domain.house.know(site);
        self.remote.polls(polled);
        if backplane::catch(|| drop(runnable)).is_err() {
            self.lose();
        }
        self.remote.polls_nothing();
        let since = since();
        if since.key().is_none() {
            self.domain.house.drops(|| Unlisted { name: site.into(), polled: !polled.is_first() });
        }
        self.heard(since);
    }

    #[inline]
    fn heard(&self, since: Since) {
        if since.has_ended() && self.domain.house.phase() > Phase::Open {
            self.one_less();
        }
        if since.lost {
            self.lose();
        }
    }

    /// The future of a task is gone, which was written down there.
    #[inline]
    pub(crate) fn gone(&self, key: Option<Key>) {
        if let Some(key) = key
            && let Some(shard) = self.domain.shards.get(key.shard())
        {
            shard.remove(key);
        }
        // Whoever is told of its end does not find it running.
        self.remote.polls_nothing();
        self.remote.counters.ended.add_after(1);
    }

    /// Somebody waits for the last task.
    #[cold]
    fn one_less(&self) {
        if self.domain.is_empty() {
            self.domain.house.tell();
            if self.domain.house.phase() == Phase::Dropping {
                self.domain.idle.rouse_all();
            }
        }
    }

    #[cold]
    fn lose(&self) {
        self.remote.counters.lost_panics.add(1);
    }

    /// The next task, wherever it is; stolen if need be.
    #[inline]
    fn find(&self) -> Option<Runnable> {
        if self.state.jumped.replace(false) {
            self.state.idle_jumps.set(self.state.idle_jumps.get() + 1);
        }
        let tick = self.state.tick.get().wrapping_add(1);
        self.state.tick.set(tick);
        if tick.is_multiple_of(OUTSIDE)
            && let Some(runnable) = self.take_from_outside()
        {
            return Some(runnable);
        }
        if self.state.pinned_waits.get()
            && let Some(runnable) = self.find_pinned()
        {
            return Some(runnable);
        }
        let streak = self.state.streak.get();
        if self.state.has_next.get() && streak < STREAK {
            self.state.has_next.set(false);
            if let Some(runnable) = self.remote.next.take() {
                self.state.streak.set(streak + 1);
                self.state.jumped.set(!self.deque.is_empty());
                self.remote.counters.next.add(1);
                return Some(runnable);
            }
        }
        self.state.streak.set(0);
        if let Some(runnable) = self.deque.pop() {
            return Some(runnable);
        }
        self.find_elsewhere()
    }

    fn find_pinned(&self) -> Option<Runnable> {
        // Every other time, so that neither kind starves the other.
        if !self.state.pinned_turn.replace(!self.state.pinned_turn.get()) {
            return None;
        }
        let mut pinned = self.pinned.borrow_mut();
        let runnable = pinned.pop_front();
        self.state.pinned_waits.set(!pinned.is_empty());
        runnable
    }

    /// What others have left for this worker, or for any.
    fn take_from_outside(&self) -> Option<Runnable> {
        self.empty_inbox();
        let runnable = taken(|| self.domain.injector().steal())?;
        self.remote.counters.from_outside.add(1);
        Some(runnable)
    }

    fn empty_inbox(&self) {
        // To look is cheaper than to take.
        if self.remote.inbox.is_empty() {
            return;
        }
        while let Ok(runnable) = self.remote.inbox.pop() {
            self.pinned.borrow_mut().push_back(runnable);
            self.state.pinned_waits.set(true);
            self.remote.counters.from_outside.add(1);
        }
    }

    /// With nothing in its own queue.
    fn find_elsewhere(&self) -> Option<Runnable> {
        self.state.backlog_nanos.set(0);
        self.empty_inbox();
        if self.state.pinned_waits.get() {
            self.state.pinned_turn.set(true);
            if let Some(runnable) = self.find_pinned() {
                return Some(runnable);
            }
        }
        if self.state.has_next.replace(false)
            && let Some(runnable) = self.remote.next.take()
        {
            self.remote.counters.next.add(1);
            return Some(runnable);
        }
        let before = self.deque.len();
        if let Some(runnable) = taken(|| self.domain.injector().steal_batch_and_pop(&self.deque)) {
            let taken = 1 + self.deque.len().saturating_sub(before);
            self.remote.counters.from_outside.add(taken as u64);
            return Some(runnable);
        }
        self.steal()
    }

    fn steal(&self) -> Option<Runnable> {
        let remotes = self.domain.remotes();
        if remotes.len() < 2 {
            return None;
        }
        if !self.state.searching.replace(true) {
            self.domain.idle.search();
        }
        let (start, mut gathered) = (self.random(remotes.len()), false);
        for remote in remotes[start..].iter().chain(&remotes[..start]) {
            if Arc::ptr_eq(remote, &self.remote) {
                continue;
            }
            if !gathered {
                gathered = self.let_gather(remote);
            }
            let stolen = taken(|| remote.stealer.steal_batch_and_pop(&self.deque));
            let behind_a_stuck_one =
                || if remote.stuck.load(Ordering::Relaxed) { remote.next.take() } else { None };
            if let Some(runnable) = stolen.or_else(behind_a_stuck_one) {
                self.remote.counters.steals.add(1);
                return Some(runnable);
            }
        }
        None
    }

    /// Waits a moment, if there is work, but little, at a worker, and as long as it becomes more.
    fn let_gather(&self, remote: &Remote) -> bool {
        let is_little =
            |waiting| waiting > 0 && !self.is_worth(waiting) && !remote.stuck.load(Ordering::Relaxed);
        let mut waiting = remote.stealer.len();
        if !is_little(waiting) {
            return false;
        }
        let (begin, mut pause) = (Instant::now(), GATHER_STEP);
        loop {
            while begin.elapsed() < pause {
                (0..4).for_each(|_| std::hint::spin_loop());
            }
            let before = std::mem::replace(&mut waiting, remote.stealer.len());
            if waiting <= before || !is_little(waiting) || pause >= GATHER {
                return true;
            }
            pause += GATHER_STEP;
        }
    }

    fn random(&self, below: usize) -> usize {
        // Xorshift: where to begin is all it decides.
        let mut word = self.state.random.get();
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        self.state.random.set(word);
        word as usize % below
    }

    #[inline]
    fn stop_searching(&self) {
        if self.state.searching.get() {
            self.found();
        }
    }

    #[cold]
    fn found(&self) {
        self.state.searching.set(false);
        // The last who searched passes the search on, if there is more (`idle`, invariant 2).
        if self.domain.idle.found() && self.is_there_more() {
            self.domain.idle.notify();
        }
    }

    /// Whether there is anything that this worker or another could take.
    fn is_there_more(&self) -> bool {
        let stealable = |remote: &Arc<Remote>| !remote.stealer.is_empty();
        !self.domain.injector().is_empty() || self.domain.remotes().iter().any(stealable)
    }

    /// Falls asleep, unless there is something after all.
    fn sleep(&self, cx: &Context<'_>, now: Instant) -> bool {
        if !self.state.searching.replace(true) {
            self.domain.idle.search();
        }
        self.remote.awake.store(false, Ordering::SeqCst);
        self.state.searching.set(false);
        self.state.asleep_since.set(Some(now));
        self.domain.idle.sleep(self.index, cx.waker());
        // Between the search and the sleep something may have come (`idle`, invariant 1).
        let woken = self.is_there_more()
            || !self.remote.inbox.is_empty()
            || self.domain.house.phase() == Phase::Dropping && !self.state.dropping.get();
        if woken {
            self.wake_up();
            // It stays the one on whom others have relied, and passes the search on (`idle`, invariant 2).
            if !self.state.searching.replace(true) {
                self.domain.idle.search();
            }
        } else {
            self.remote.counters.parks.add(1);
        }
        !woken
    }

    /// Awake, if it was not.
    #[inline]
    fn wake_up(&self) {
        if let Some(since) = self.state.asleep_since.take() {
            self.wake_up_from(since);
        }
    }

    /// As [`wake_up`](Local::wake_up), right before a turn, which so need not ask for the time again.
    #[inline]
    fn wake_up_for_a_turn(&self) -> bool {
        let slept = self.state.asleep_since.take();
        if let Some(since) = slept {
            self.state.woke.set(Some(self.wake_up_from(since)));
        }
        slept.is_some()
    }

    fn wake_up_from(&self, since: Instant) -> Instant {
        self.remote.awake.store(true, Ordering::SeqCst);
        let counters = &self.remote.counters;
        if self.domain.idle.leave(self.index) == Woken::Notified {
            self.state.searching.set(true);
            counters.wakes.add(1);
        }
        let now = Instant::now();
        counters.parked_nanos.add(u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX));
        self.domain.house.alarm.somebody_is_awake();
        now
    }

    /// Pinned threads never leave their node; others are seen here.
    fn look_where_we_are(&self, polls: u32) {
        if polls > 0 && current_cpu().is_some_and(|cpu| !self.domain.cpus.contains(cpu)) {
            self.remote.counters.off_node_polls.add(polls.into());
        }
    }

    /// Drops every task it can find, until the domain has none.
    #[cold]
    fn poll_dropping(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stop_searching();
        if !self.state.dropping.replace(true) {
            self.shard().close();
            self.shard().wake_all();
            // Whoever is first closes the door for all; whoever is second finds it so.
            self.domain.outside().close();
            self.domain.outside().wake_all();
        }
        loop {
            while let Some(runnable) = self.find_for_dropping() {
                self.discard(runnable);
            }
            if self.state.refusals.get() > 0 {
                self.drop_refused();
                continue;
            }
            if self.domain.is_empty() {
                self.stop_searching();
                self.domain.idle.rouse_all();
                return Poll::Ready(());
            }
            if !self.state.helped.replace(true) {
                // A worker that is stuck does not come to those that it has written down.
                self.domain.shards.iter().for_each(|shard| shard.wake_all());
                continue;
            }
            if self.sleep(cx, Instant::now()) {
                // The last task may have gone before this one slept.
                if !self.domain.is_empty() {
                    return Poll::Pending;
                }
                self.wake_up();
            }
        }
    }

    fn find_for_dropping(&self) -> Option<Runnable> {
        self.empty_inbox();
        let pinned = self.pinned.borrow_mut().pop_front();
        pinned
            .or_else(|| self.remote.next.take())
            .or_else(|| self.deque.pop())
            .or_else(|| self.find_elsewhere())
    }
}

/// What there is to take, however many others take at the same time.
#[inline]
pub(crate) fn taken(mut steal: impl FnMut() -> Steal<Runnable>) -> Option<Runnable> {
    loop {
        match steal() {
            Steal::Success(runnable) => return Some(runnable),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("index", &self.index)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::{cpus::CpuSet, domain::House, task::Meta, watch::Alarm};

    #[test]
    fn only_where_little_waits_at_a_worker_that_is_not_stuck_it_is_let_gather() {
        let domain = Domain::new(0, 0, CpuSet::new(), Arc::new(House::new(Alarm::default())), 2);
        let (deque, theirs) = (Worker::new_fifo(), Worker::new_fifo());
        let [remote, other] =
            [&deque, &theirs].map(|deque| Arc::new(Remote::new(deque.stealer(), &Reactor::AsyncIo)));
        let home = domain.id();
        let local = Local::new(0, domain, remote, deque, Reactor::AsyncIo);
        let mut tasks = Vec::new();
        let mut one_more = || {
            let meta = Meta::new(None, Site::of::<()>(Location::caller()), None, home);
            let (runnable, task) = async_task::Builder::new().metadata(meta).spawn(|_| async {}, drop);
            theirs.push(runnable);
            tasks.push(task);
        };
        assert!(!local.let_gather(&other), "nothing waits");
        one_more();
        assert!(!local.let_gather(&other), "who has polled nothing yet thinks that it is much");
        local.state.poll_nanos.set(WAKE_NANOS / 2 - 1);
        assert!(local.let_gather(&other));
        one_more();
        assert!(local.let_gather(&other));
        one_more();
        assert!(!local.let_gather(&other), "three of them are worth a wake");
        local.state.poll_nanos.set(1);
        assert!(local.let_gather(&other));
        other.stuck.store(true, Ordering::Relaxed);
        assert!(!local.let_gather(&other), "there nothing becomes more");
        other.stuck.store(false, Ordering::Relaxed);
        while theirs.pop().is_some() {}
        assert!(!local.let_gather(&other));
    }
}
