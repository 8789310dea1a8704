//! Random operations against a set of pairs: exactly this news, in exactly this order.

use std::collections::{BTreeMap, VecDeque};

use backplane::{Device, Exit, Fault, FaultKind, LinkMode, Message};
use proptest::prelude::*;

use crate::support::kind;

/// So many devices play.
const PLAYERS: usize = 5;

/// By which handles an operation goes, where both are alive.
#[derive(Clone, Copy, Debug)]
enum By {
    Devices,
    DeviceAndLine,
    LineAndDevice,
    Lines,
}

#[derive(Clone, Debug)]
enum Step {
    Link { from: usize, to: usize, mode: LinkMode, tag: Option<u64>, by: By },
    Unlink { from: usize, to: usize, mode: LinkMode, by: By },
    Shutdown { from: usize, to: usize },
    End { who: usize, how: u8 },
    Receive { who: usize, most: usize },
    Flush { who: usize, of: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let player = 0..PLAYERS;
    let mode = prop_oneof![Just(LinkMode::Monitor), Just(LinkMode::Notify), Just(LinkMode::Peer)];
    let by =
        prop_oneof![Just(By::Devices), Just(By::DeviceAndLine), Just(By::LineAndDevice), Just(By::Lines)];
    let step = prop_oneof![
        8 => (player.clone(), player.clone(), mode.clone(), prop::option::of(1..9u64), by.clone())
            .prop_map(|(from, to, mode, tag, by)| Step::Link { from, to, mode, tag, by }),
        4 => (player.clone(), player.clone(), mode, by)
            .prop_map(|(from, to, mode, by)| Step::Unlink { from, to, mode, by }),
        1 => (player.clone(), player.clone()).prop_map(|(from, to)| Step::Shutdown { from, to }),
        2 => (player.clone(), 0..4u8).prop_map(|(who, how)| Step::End { who, how }),
        2 => (player.clone(), 1..4usize).prop_map(|(who, most)| Step::Receive { who, most }),
        1 => (player.clone(), player).prop_map(|(who, of)| Step::Flush { who, of }),
    ];
    prop::collection::vec(step, 1..120)
}

/// What should be: who watches whom under which tag, and what is queued.
#[derive(Default)]
struct Model {
    dead: [bool; PLAYERS],
    watches: BTreeMap<(usize, usize), u64>,
    queues: [VecDeque<News>; PLAYERS],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum News {
    Ended { who: usize, how: u8, tag: u64 },
    Gone { who: usize, tag: u64 },
    Shutdown { from: usize },
}

impl Model {
    fn watch(&mut self, watcher: usize, of: usize, tag: Option<u64>) {
        if watcher == of || self.dead[watcher] {
        } else if self.dead[of] {
            self.queues[watcher].push_back(News::Gone { who: of, tag: tag.unwrap_or(0) });
        } else {
            // A tag that is not named leaves the one that was.
            let named = self.watches.entry((watcher, of)).or_insert(0);
            *named = tag.unwrap_or(*named);
        }
    }

    fn end(&mut self, who: usize, how: u8) {
        self.dead[who] = true;
        for watcher in 0..PLAYERS {
            if let Some(tag) = self.watches.remove(&(watcher, who)) {
                self.queues[watcher].push_back(News::Ended { who, how, tag });
            }
            self.watches.remove(&(who, watcher));
        }
    }
}

fn directions(mode: LinkMode) -> (bool, bool) {
    (mode != LinkMode::Notify, mode != LinkMode::Monitor)
}

fn run(steps: Vec<Step>) {
    let mut devices: Vec<Option<Device>> = (0..PLAYERS).map(|_| Some(Device::new())).collect();
    let lines: Vec<_> = devices.iter().flatten().map(Device::line).collect();
    let who = |id| lines.iter().position(|line| line.id() == id).unwrap();
    let mut model = Model::default();

    let read = |message: Message| match message {
        Message::Shutdown(by) => News::Shutdown { from: who(by) },
        Message::Disconnect(news) => {
            let (tag, device) = (news.tag, who(news.device));
            let how = match (&news.exit, kind(&news.exit)) {
                (_, Some(FaultKind::Gone)) => return News::Gone { who: device, tag },
                (Exit::Normal, _) => 0,
                (Exit::Shutdown, _) => 1,
                (_, Some(FaultKind::Error)) => 2,
                (_, Some(FaultKind::Dropped)) => 3,
                other => panic!("{other:?} was never sent"),
            };
            News::Ended { who: device, how, tag }
        }
    };

    for step in steps {
        match step {
            Step::Link { from, to, mode, tag, by } => {
                let link = tag.map_or(mode.into(), |tag| mode.tag(tag));
                match (by, &devices[from], &devices[to]) {
                    (By::Devices, Some(a), Some(b)) => a.link(b, link),
                    (By::Devices | By::DeviceAndLine, Some(a), _) => a.link(&lines[to], link),
                    (By::Devices | By::LineAndDevice, _, Some(b)) => lines[from].link(b, link),
                    _ => lines[from].link(&lines[to], link),
                }
                let (monitors, notifies) = directions(mode);
                if monitors {
                    model.watch(from, to, tag);
                }
                if notifies {
                    model.watch(to, from, tag);
                }
            }
            Step::Unlink { from, to, mode, by } => {
                match (by, &devices[from], &devices[to]) {
                    (By::Devices, Some(a), Some(b)) => a.unlink(b, mode),
                    (By::Devices | By::DeviceAndLine, Some(a), _) => a.unlink(&lines[to], mode),
                    (By::Devices | By::LineAndDevice, _, Some(b)) => lines[from].unlink(b, mode),
                    _ => lines[from].unlink(&lines[to], mode),
                }
                let (monitors, notifies) = directions(mode);
                if monitors {
                    model.watches.remove(&(from, to));
                }
                if notifies {
                    model.watches.remove(&(to, from));
                }
            }
            Step::Shutdown { from, to } => {
                // Where the same request waits as the last news there is, it is the same request; whether it still waits
                // in the slot is not for the model to know.
                let waits = model.queues[to].back() == Some(&News::Shutdown { from });
                if !model.dead[to] && (!waits || from == to) {
                    lines[to].shutdown(lines[from].id());
                    model.queues[to].push_back(News::Shutdown { from });
                }
            }
            Step::End { who, how } => {
                let Some(device) = devices[who].take() else { continue };
                match how {
                    0 => device.disconnect(Exit::Normal),
                    1 => device.disconnect(Exit::Shutdown),
                    2 => device.disconnect(Exit::Fault(Fault::silent_error())),
                    _ => drop(device),
                }
                model.end(who, how);
            }
            Step::Receive { who, most } => {
                let Some(device) = &mut devices[who] else { continue };
                for _ in 0..most {
                    assert_eq!(device.try_receive().map(read), model.queues[who].pop_front());
                }
            }
            Step::Flush { who, of } => {
                let Some(device) = &devices[who] else { continue };
                let before = model.queues[who].len();
                model.queues[who].retain(
                    |news| !matches!(news, News::Ended { who, .. } | News::Gone { who, .. } if *who == of),
                );
                assert_eq!(device.flush(&lines[of]), before - model.queues[who].len());
            }
        }
        for (line, dead) in lines.iter().zip(model.dead) {
            assert_eq!(line.is_alive(), !dead);
        }
    }
    for (who, device) in devices.iter_mut().enumerate() {
        let Some(device) = device else { continue };
        while let Some(message) = device.try_receive() {
            assert_eq!(Some(read(message)), model.queues[who].pop_front());
        }
        assert_eq!(model.queues[who].pop_front(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_heard_is_what_a_set_of_pairs_says(steps in steps()) {
        run(steps);
    }
}
