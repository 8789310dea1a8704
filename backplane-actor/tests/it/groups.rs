//! Groups: who is in them, and who hears of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    task::{Context, Waker},
};

use backplane::{Device, Exit, Line, LinkMode, Message};
use backplane_actor::{Change, Changes, Groups};

use crate::{
    random::Random,
    world::{Count, OnWake},
};

fn heard<K, V: Copy>(changes: &mut Changes<K, V>) -> Vec<(bool, V)> {
    let mut heard = Vec::new();
    while let Some(change) = changes.try_receive() {
        heard.push((change.is_join(), change.member().value));
    }
    heard
}

#[test]
fn a_member_leaves_as_often_as_it_joined() {
    let (groups, a) = (Groups::new(), Device::new());
    for value in 1..=3 {
        groups.join("g", &a.line(), value).unwrap();
    }
    assert_eq!(groups.members("g").len(), 3);
    let left: Vec<_> = (0..4).map(|_| groups.leave("g", &a.line()).map(|member| member.value)).collect();
    assert_eq!(left, [Some(1), Some(2), Some(3), None]);
    assert!(groups.groups().is_empty());
}

#[test]
fn who_has_ended_joins_nothing() {
    let groups = Groups::new();
    let line = Device::new().line();
    assert_eq!(groups.join("g", &line, 1).unwrap_err().into_inner(), ("g", 1));
}

#[test]
fn comings_and_goings_are_heard_once_and_in_order() {
    let groups = Groups::new();
    let (a, b, c) = (Device::new(), Device::new(), Device::new());
    groups.join("g", &a.line(), "a").unwrap();
    let (members, mut changes) = groups.monitor("g");
    assert_eq!(members.values().collect::<Vec<_>>(), [&"a"]);
    groups.join("g", &b.line(), "b").unwrap();
    groups.join("other", &b.line(), "elsewhere").unwrap();
    groups.join("g", &c.line(), "c").unwrap();
    groups.leave("g", &b.line());
    drop(a);
    c.disconnect(Exit::Normal);
    drop(b);
    let expected = [(true, "b"), (true, "c"), (false, "b"), (false, "a"), (false, "c")];
    assert_eq!(heard(&mut changes), expected);
    assert!(groups.groups().is_empty());
}

#[test]
fn whoever_monitors_all_groups_hears_of_those_that_come_to_be() {
    let groups = Groups::new();
    let (a, b) = (Device::new(), Device::new());
    groups.join("old", &a.line(), 1).unwrap();
    let (all, mut changes) = groups.monitor_all();
    assert_eq!(all.len(), 1);
    groups.join("new", &b.line(), 2).unwrap();
    drop(a);
    let mut heard = Vec::new();
    while let Some(change) = changes.try_receive() {
        heard.push((change.is_join(), *change.group()));
    }
    assert_eq!(heard, [(true, "new"), (false, "old")]);
}

#[test]
fn an_end_wakes_whoever_waits_to_hear_of_it() {
    let (groups, a) = (Groups::new(), Device::new());
    groups.join("g", &a.line(), 1).unwrap();
    let (_, mut changes) = groups.monitor("g");
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(changes.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    drop(a);
    assert_eq!(count.get(), 1);
    assert!(matches!(changes.try_receive(), Some(Change::Left { .. })));
}

#[test]
fn a_member_is_none_any_more_when_anybody_hears_of_its_end() {
    let (groups, a) = (Groups::new(), Device::new());
    let mut watcher = Device::new();
    watcher.link(&a, LinkMode::Monitor);
    groups.join("g", &a.line(), 1).unwrap();
    let seen = Arc::new(Mutex::new(None));
    let look = {
        let (groups, seen) = (groups.clone(), Arc::clone(&seen));
        move || *seen.lock().unwrap() = Some(groups.members("g").len())
    };
    let waker = Waker::from(Arc::new(OnWake(look)));
    assert!(watcher.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    drop(a);
    assert!(matches!(watcher.try_receive(), Some(Message::Disconnect(_))));
    assert_eq!(*seen.lock().unwrap(), Some(0));
}

#[test]
fn who_hears_may_change_the_groups_at_once() {
    let (groups, a, b) = (Groups::new(), Device::new(), Device::new());
    groups.join("g", &a.line(), 1).unwrap();
    let (_, mut changes) = groups.monitor("g");
    let rejoin = {
        let (groups, b) = (groups.clone(), b.line());
        move || groups.join("g", &b, 2).unwrap()
    };
    let waker = Waker::from(Arc::new(OnWake(rejoin)));
    assert!(changes.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    // In the middle of this, the waker joins.
    drop(a);
    assert_eq!(heard(&mut changes), [(false, 1), (true, 2)]);
    // The link of what joined in the middle was made.
    drop(b);
    assert_eq!(heard(&mut changes), [(false, 2)]);
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_told() {
    let (groups, a, b) = (Groups::new(), Device::new(), Device::new());
    groups.join("g", &a.line(), 1).unwrap();
    let (_, mut first) = groups.monitor("g");
    let (_, mut second) = groups.monitor("g");
    let waker = Waker::from(Arc::new(OnWake(|| panic!("odd waker"))));
    assert!(first.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(second.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    drop(a);
    assert_eq!(count.get(), 1);
    groups.join("g", &b.line(), 2).unwrap();
    drop(b);
    assert_eq!(heard(&mut second), [(false, 1), (true, 2), (false, 2)]);
}

#[test]
fn nothing_is_left_of_groups_members_and_monitors_that_are_gone() {
    let groups: Groups<u32, Arc<()>> = Groups::new();
    let value = Arc::new(());
    let long = Device::new();
    for round in 0..10_000 {
        let short = Device::new();
        groups.join(round, &short.line(), Arc::clone(&value)).unwrap();
        let monitor = groups.monitor(round + 1);
        groups.join(round, &long.line(), Arc::clone(&value)).unwrap();
        assert!(groups.leave(&round, &long.line()).is_some());
        drop(monitor);
    }
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(groups.groups().is_empty());
    assert_eq!(format!("{groups:?}"), "Groups { members: 0, .. }");
}

#[test]
fn one_message_reaches_all_and_is_never_copied() {
    struct Payload(#[expect(dead_code, reason = "it is only carried")] [u8; 1000]);
    let groups: Groups<&str, Mutex<Vec<Arc<Payload>>>> = Groups::new();
    let devices: Vec<Device> = (0..100).map(|_| Device::new()).collect();
    for device in &devices {
        groups.join("g", &device.line(), Mutex::default()).unwrap();
    }
    let payload = Arc::new(Payload([7; 1000]));
    let told = groups.dispatch("g", |member| member.value.lock().unwrap().push(Arc::clone(&payload)));
    assert_eq!((told, Arc::strong_count(&payload)), (100, 101));
}

#[test]
fn turns_go_round_whoever_comes_and_goes() {
    let groups = Groups::new();
    let mut devices: Vec<Device> = (0..4).map(|_| Device::new()).collect();
    for (value, device) in devices.iter().enumerate() {
        groups.join("g", &device.line(), value).unwrap();
    }
    let hand = groups.distributor("g");
    let other = hand.clone();
    let turn = || hand.one().map(|member| member.value);
    assert_eq!([turn(), turn()], [Some(0), Some(1)]);
    drop(devices.remove(2));
    assert_eq!(other.one().map(|member| member.value), Some(3));
    let new = Device::new();
    groups.join("g", &new.line(), 9).unwrap();
    assert_eq!([turn(), turn(), turn(), turn()], [Some(9), Some(0), Some(1), Some(3)]);
    drop((devices, new));
    assert_eq!(turn(), None);
}

/// Against lists: the members are what the model says, and what is heard, applied to what was, is what is.
#[test]
fn what_is_heard_adds_up_to_what_is() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let groups: Groups<u64, u64> = Groups::new();
        let mut model: BTreeMap<u64, Vec<(Line, u64)>> = BTreeMap::new();
        let mut devices: Vec<Device> = (0..5).map(|_| Device::new()).collect();
        let mut monitors: Vec<(u64, Vec<u64>, Changes<u64, u64>)> = Vec::new();
        let mut log: Vec<(u64, bool, u64)> = Vec::new();
        let mut from: Vec<usize> = Vec::new();
        for value in 0..200 {
            let (group, who) = (random.below(3), random.below(5) as usize);
            let line = devices[who].line();
            match random.below(8) {
                0..=2 => {
                    groups.join(group, &line, value).unwrap();
                    model.entry(group).or_default().push((line, value));
                    log.push((group, true, value));
                }
                3..=4 => {
                    let list = model.entry(group).or_default();
                    let place = list.iter().position(|(owner, _)| *owner == line);
                    let expected = place.map(|place| list.remove(place).1);
                    log.extend(expected.map(|value| (group, false, value)));
                    assert_eq!(
                        groups.leave(&group, &line).map(|member| member.value),
                        expected,
                        "seed {seed}"
                    );
                }
                5 => {
                    devices[who] = Device::new();
                    for (group, list) in &mut model {
                        log.extend(
                            list.iter().filter(|(owner, _)| *owner == line).map(|(_, v)| (*group, false, *v)),
                        );
                        list.retain(|(owner, _)| *owner != line);
                    }
                }
                6 => {
                    let (members, changes) = groups.monitor(group);
                    monitors.push((group, members.values().copied().collect(), changes));
                    from.push(log.len());
                }
                _ => {
                    if !monitors.is_empty() && random.below(3) == 0 {
                        let place = random.below(monitors.len() as u64) as usize;
                        monitors.swap_remove(place);
                        from.swap_remove(place);
                    }
                }
            }
            for group in 0..3 {
                let members: Vec<u64> = groups.members(&group).values().copied().collect();
                let expected: Vec<u64> =
                    model.get(&group).into_iter().flatten().map(|(_, value)| *value).collect();
                assert_eq!(members, expected, "seed {seed}");
            }
        }
        for ((group, mut members, mut changes), from) in monitors.into_iter().zip(from) {
            let heard = heard(&mut changes);
            let mut told: Vec<(bool, u64)> = log[from..]
                .iter()
                .filter(|(of, ..)| *of == group)
                .map(|(_, join, value)| (*join, *value))
                .collect();
            // All that one end takes along has no order.
            let sorted = |mut list: Vec<(bool, u64)>| {
                list.sort_unstable();
                list
            };
            assert_eq!(sorted(heard.clone()), sorted(std::mem::take(&mut told)), "seed {seed}");
            for (joined, value) in heard {
                if joined {
                    members.push(value);
                } else {
                    let place = members.iter().position(|member| *member == value);
                    members.remove(place.expect("who leaves was there"));
                }
            }
            assert_eq!(members, groups.members(&group).values().copied().collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

#[test]
fn on_many_threads_each_change_is_heard_once_and_each_end_too() {
    let groups: Groups<u32, u32> = Groups::new();
    let (_, mut changes) = groups.monitor_all();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let groups = &groups;
            scope.spawn(move || {
                let mut random = Random(u64::from(thread));
                for round in 0..2000 {
                    let device = Device::new();
                    let value = thread * 10_000 + round;
                    groups.join(value % 5, &device.line(), value).unwrap();
                    if random.below(2) == 0 {
                        assert!(groups.leave(&(value % 5), &device.line()).is_some());
                    }
                }
            });
        }
    });
    let mut there = std::collections::HashSet::new();
    let mut joins = 0;
    for (join, value) in heard(&mut changes) {
        joins += u32::from(join);
        assert!(if join { there.insert(value) } else { there.remove(&value) });
    }
    assert_eq!((joins, there.len(), groups.groups().len()), (6000, 0, 0));
}
