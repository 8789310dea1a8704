//! Hydra's side: a process where a loop over messages will do, a GenServer where somebody calls.

use hydra::{ExitReason, From, GenServer, GenServerOptions, Message, Pid, Process, SystemMessage};
use serde::{Deserialize, Serialize};

use crate::{Side, heap_of, side, timed};

#[derive(Serialize, Deserialize)]
enum Count {
    Add(u64),
    Get(Pid),
    Total(u64),
    Fail,
    Stop,
}

async fn count() {
    let mut total = 0;
    loop {
        match Process::receiver().for_message::<Count>().receive().await {
            Message::User(Count::Add(n)) => total += n,
            Message::User(Count::Get(to)) => Process::send(to, Count::Total(total)),
            Message::User(Count::Fail) => panic!("out of beans"),
            Message::User(Count::Stop) => return,
            _ => {}
        }
    }
}

async fn get(pid: Pid) {
    Process::send(pid, Count::Get(Process::current()));
    let receiver = Process::receiver().for_message::<Count>();
    receiver.select(|message| matches!(message, Message::User(Count::Total(_)))).await;
}

struct Counter(u64);

#[derive(Serialize, Deserialize)]
enum Request {
    Get,
    Total(u64),
}

impl GenServer for Counter {
    type Message = Request;

    async fn init(&mut self) -> Result<(), ExitReason> {
        Ok(())
    }

    async fn handle_call(&mut self, _: Request, _: From) -> Result<Option<Request>, ExitReason> {
        Ok(Some(Request::Total(self.0)))
    }
}

/// In a process, as most of Hydra works in one only.
fn inside<F>(run: impl Fn(u32) -> F + 'static) -> Side
where
    F: Future<Output = std::time::Duration> + Send + 'static,
{
    side("hydra", move |n| {
        let run = run(n);
        async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            Process::spawn(async move {
                let _ = tell.send(run.await);
            });
            told.await.expect("it measures")
        }
    })
}

pub(crate) fn tell(senders: u32) -> Side {
    inside(move |n| async move {
        let pid = Process::spawn(count());
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            Process::send(pid, Count::Add(u64::from(i)));
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            get(pid).await;
            Process::send(pid, Count::Stop);
        })
        .await
    })
}

pub(crate) fn tell_many(receivers: u32) -> Side {
    inside(move |n| async move {
        let pids: Vec<_> = (0..receivers).map(|_| Process::spawn(count())).collect();
        timed(async {
            for i in 0..n / receivers {
                for pid in &pids {
                    Process::send(*pid, Count::Add(u64::from(i)));
                }
            }
            for pid in pids {
                get(pid).await;
                Process::send(pid, Count::Stop);
            }
        })
        .await
    })
}

pub(crate) fn call() -> Side {
    inside(move |n| async move {
        let pid = Counter(0).start(GenServerOptions::new()).await.expect("it starts");
        let took = timed(async {
            for _ in 0..n {
                assert!(Counter::call(pid, Request::Get, None).await.is_ok());
            }
        })
        .await;
        Process::exit(pid, ExitReason::Kill);
        took
    })
}

/// Until the process of this monitor has ended.
async fn down(monitor: hydra::Reference) {
    let receiver = Process::receiver().for_message::<Count>();
    let is_down = |message: &Message<&Count>| matches!(message, Message::System(SystemMessage::ProcessDown(_, of, _)) if *of == monitor);
    receiver.select(is_down).await;
}

/// A process is spawned, and told its last message.
fn lives(last: fn() -> Count) -> Side {
    inside(move |n| async move {
        timed(async {
            for _ in 0..n {
                let (pid, monitor) = Process::spawn_monitor(count());
                Process::send(pid, last());
                down(monitor).await;
            }
        })
        .await
    })
}

pub(crate) fn spawn() -> Side {
    lives(|| Count::Stop)
}

pub(crate) fn crash() -> Side {
    lives(|| Count::Fail)
}

pub(crate) fn ring(size: u32) -> Side {
    inside(move |n| async move {
        let me = Process::current();
        let mut to = me;
        for _ in 1..size {
            let next = to;
            to = Process::spawn(async move {
                loop {
                    if let Message::User(left) = Process::receiver().for_message::<u32>().receive().await {
                        Process::send(next, left.saturating_sub(1));
                        if left == 0 {
                            return;
                        }
                    }
                }
            });
        }
        timed(async {
            Process::send(to, n);
            loop {
                if let Message::User(left) = Process::receiver().for_message::<u32>().receive().await {
                    Process::send(to, left.saturating_sub(1));
                    if left == 0 {
                        return;
                    }
                }
            }
        })
        .await
    })
}

pub(crate) fn bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    let _inside = tokio.enter();
    heap_of(tokio, || Process::spawn(count()))
}
