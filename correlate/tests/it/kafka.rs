//! Against a real broker: `.ci/run kafka` starts one, and says where in `CORRELATE_KAFKA` (the folder of `.ci/kafka`).
//! Without it these tests say that they are skipped.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::Value;

use crate::{Dice, report, said};

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(90);

/// A broker that runs.
struct Broker {
    dir: PathBuf,
    address: String,
}

impl Broker {
    fn there() -> Option<Broker> {
        Broker::of("CORRELATE_KAFKA")
    }

    fn of(variable: &str) -> Option<Broker> {
        let Some(dir) = std::env::var_os(variable).map(PathBuf::from) else {
            eprintln!("SKIPPED: {variable} names no broker; `.ci/run kafka` starts one");
            return None;
        };
        let address = std::fs::read_to_string(dir.join("broker")).expect("the broker's address");
        Some(Broker { dir, address: address.trim().to_owned() })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    fn script(&self, verb: &str) {
        self.script_with(verb, &[]);
    }

    fn script_with(&self, verb: &str, more: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kafka");
        let mut script = vec![script.as_os_str(), verb.as_ref(), self.dir.as_os_str()];
        script.extend(more.iter().map(|word| std::ffi::OsStr::new(*word)));
        let done = Command::new("bash").args(script).stdin(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "{verb}");
    }

    /// Fills a new source: three stages for so many keys, each key in its partition, in an order that tells nothing.
    fn fill(&self, topic: &str, keys: u64) {
        let of = |key| ["A", "B", "C"].map(|stage| (key, stage, key * 31));
        self.make(topic);
        self.send(topic, (0..keys).flat_map(of).collect());
    }

    /// The same with each message twice, and in each another number: 6 times the key and what is left.
    fn fill_twice(&self, topic: &str, keys: u64) {
        let of = |key| (0..6).map(move |n| (key, ["A", "B", "C"][n as usize % 3], key * 6 + n));
        self.make(topic);
        self.send(topic, (0..keys).flat_map(of).collect());
    }

    fn make(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("an administrator");
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new());
        futures_lite::future::block_on(made)
            .expect("an answer")
            .into_iter()
            .for_each(|made| drop(made.expect("made")));
    }

    /// Sends them, in an order that tells nothing.
    fn send(&self, topic: &str, mut messages: Vec<(u64, &'static str, u64)>) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for last in (1..messages.len()).rev() {
            messages.swap(last, dice.below(last as u64 + 1) as usize);
        }
        let messages = messages.into_iter().map(|(key, stage, value)| (key, stage, value.to_string()));
        self.send_in_order(topic, messages);
    }

    fn send_in_order(&self, topic: &str, messages: impl Iterator<Item = (u64, &'static str, String)>) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().set("linger.ms", "20").create().expect("a producer");
        for (key, stage, value) in messages {
            let (name, value) =
                (key.to_string(), format!(r#"{{"stage":"{stage}","key":{key},"value":{value}}}"#));
            let mut record = BaseRecord::to(topic).key(&name).payload(&value).partition((key % 4) as i32);
            while let Err((_, again)) = producer.send(record) {
                record = again;
                std::thread::yield_now();
            }
        }
        producer.flush(PATIENCE).expect("all is sent");
    }

    fn begin(&self, topic: &str, more: &str) -> Life {
        let mut command = self.command(topic, more);
        Life(command.stdout(Stdio::null()).spawn().expect("it starts"))
    }

    fn command(&self, topic: &str, more: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_correlate"));
        command.args([
            "run",
            "--brokers",
            &self.address,
            "--source",
            topic,
            "--sink",
            &format!("{topic}-out"),
        ]);
        command.args(["--stages", "A,B,C", "--quiet"]);
        if !more.contains("--epoch") {
            command.args(["--epoch", "100", "--snapshot", "300"]);
        }
        command.args(["--set", "session.timeout.ms=6000"]).args(more.split_whitespace()).stdin(Stdio::null());
        command
    }

    /// Ends by itself when all is joined.
    fn finish(&self, topic: &str) -> Value {
        self.finish_with(topic, "")
    }

    fn finish_with(&self, topic: &str, more: &str) -> Value {
        let mut command = self.command(topic, &format!("--until-end --report json {more}"));
        report(&command.output().expect("it starts"))
    }

    /// What is committed in the sink, how often for each row; read until there are so many, or until the end.
    fn rows(&self, topic: &str, wanted: Option<u64>) -> HashMap<String, u64> {
        self.lines(&format!("{topic}-out"), wanted)
    }

    fn lines(&self, topic: &str, wanted: Option<u64>) -> HashMap<String, u64> {
        let mut config = self.config();
        config
            .set("group.id", "reader")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("assigned");
        let (mut rows, mut ended, until) =
            (HashMap::new(), [false; PARTITIONS as usize], Instant::now() + PATIENCE);
        while wanted.map_or(ended.contains(&false), |wanted| (rows.len() as u64) < wanted) {
            assert!(Instant::now() < until, "{} rows in {topic} after a long time", rows.len());
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => *rows.entry(said(message.payload().expect("a row"))).or_insert(0) += 1,
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                    ended[partition as usize] = true
                }
                Some(Err(_)) | None => {}
            }
        }
        rows
    }

    /// Every key once, with all that it had, and nothing else.
    fn verify(&self, topic: &str, keys: u64) {
        // A commit is answered before a broker has marked it in all partitions; until then they seem to end earlier.
        self.rows(topic, Some(keys));
        let rows = self.rows(topic, None);
        for key in 0..keys {
            let value = format!(r#"{{"value":{}}}"#, key * 31);
            let row = format!(r#"{{"key":{key},"A":{value},"B":{value},"C":{value}}}"#);
            assert_eq!(rows.get(&row), Some(&1), "{row} in {topic}");
        }
        assert_eq!(rows.len() as u64, keys, "{topic}");
    }
}

/// Of each stage of a line the number in its message.
fn numbers(line: &str) -> Vec<u64> {
    let line: Value = serde_json::from_str(line).expect("JSON");
    let stages = ["A", "B", "C"].into_iter().enumerate();
    let there = stages.filter_map(|(n, stage)| Some((n as u64, line[stage]["value"].as_u64()?)));
    let numbers: Vec<u64> = there
        .map(|(n, number)| {
            assert_eq!((line["key"].as_u64(), n), (Some(number / 6), number % 3), "{line}");
            number
        })
        .collect();
    assert!(!numbers.is_empty(), "{line}");
    numbers
}

impl Broker {
    /// After [`fill_twice`](Broker::fill_twice): no message is twice in what came out, what is missing is open, and what the
    /// program has counted is what is there. Which of two messages is in a row is a matter of luck, but of one throw.
    fn verify_twice(&self, topic: &str, keys: u64, report: &Value) {
        let (rows, duplicates) =
            (self.rows(topic, None), self.lines(&format!("{topic}-out-duplicates"), None));
        for (line, times) in rows.iter().chain(&duplicates) {
            assert_eq!(*times, 1, "{line} in {topic}");
        }
        let mut there = vec![false; 6 * keys as usize];
        for (lines, stages) in [(&rows, 3), (&duplicates, 1)] {
            for line in lines.keys() {
                let numbers = numbers(line);
                assert_eq!(numbers.len(), stages, "{line}");
                for number in numbers {
                    let there = &mut there[number as usize];
                    assert!(!std::mem::replace(there, true), "{number} came out twice: {line}");
                }
            }
        }
        let open = there.chunks(6).filter(|key| key.contains(&false)).count();
        let is = [rows.len(), duplicates.len(), open].map(|n| n as u64);
        let said = [&report["joined"], &report["duplicates"], &report["open_keys"]["end"]];
        assert_eq!(is.map(Some), said.map(Value::as_u64), "rows, duplicates, open keys of {topic}");
        assert!(is[0] >= keys && is[1] > 0, "{is:?}");
        let sums = rows.keys().chain(duplicates.keys()).flat_map(|line| numbers(line)).sum::<u64>();
        let missing: u64 = (0..).zip(&there).filter(|(_, there)| !**there).map(|(n, _)| n).sum();
        assert_eq!(sums + missing, (0..6 * keys).sum::<u64>());
    }
}

/// A process that does not outlive its test.
struct Life(Child);

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn kill(mut life: Life) {
    life.0.kill().and_then(|()| life.0.wait()).expect("it dies");
}

fn signal(life: &Life, signal: &str) {
    let done = Command::new("kill").args([signal, &life.0.id().to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()));
}

fn ask_to_stop(mut life: Life) {
    signal(&life, "-TERM");
    assert_eq!(life.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn kafka_a_process_that_is_killed_goes_on_exactly_once() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("killed", 20_000);
    broker.fill(topic, keys);
    for rows in [100, 8_000] {
        let child = broker.begin(topic, "--kills 6");
        broker.made(topic);
        broker.rows(topic, Some(rows));
        kill(child);
    }
    broker.finish(topic);
    broker.verify(topic, keys);
    let again = broker.finish(topic);
    assert_eq!(again["messages"], 0, "{again}");
}

impl Broker {
    /// Waits for the sink: a consumer of a topic that is not there yet takes its time.
    fn made(&self, topic: &str) {
        let consumer: BaseConsumer = self.config().create().expect("a consumer");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let about = consumer.fetch_metadata(None, PATIENCE).expect("an answer");
            if about.topics().iter().any(|there| there.name() == format!("{topic}-out")) {
                return;
            }
        }
        panic!("no sink");
    }
}

#[test]
fn kafka_of_two_processes_in_a_group_one_is_killed_and_the_other_takes_over() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("two", 30_000);
    broker.fill(topic, keys);
    let first = broker.begin(topic, "--kills 3");
    broker.made(topic);
    broker.rows(topic, Some(10));
    let second = broker.begin(topic, "");
    broker.rows(topic, Some(10_000));
    kill(first);
    broker.rows(topic, Some(keys));
    ask_to_stop(second);
    broker.verify(topic, keys);
}

#[test]
fn kafka_a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("broker", 30_000);
    broker.fill(topic, keys);
    let child = broker.begin(topic, "");
    broker.made(topic);
    broker.rows(topic, Some(1_000));
    broker.script("kill");
    broker.script("start");
    broker.rows(topic, Some(keys));
    ask_to_stop(child);
    broker.verify(topic, keys);
}

/// Without transactions; a short session, as each life waits for the end of the one before.
const READ_BACK: &str = "--transactions never --set session.timeout.ms=2000";

#[test]
fn kafka_without_transactions_which_of_two_messages_was_joined_is_decided_once() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("decided", 10_000);
    broker.fill_twice(topic, keys);
    for life in 0..6 {
        // Rows can be read before their epoch is through: it is killed in the middle of one.
        let child = broker.begin(topic, &format!("{READ_BACK} --kills 4 --seed {life}"));
        broker.made(topic);
        broker.rows(topic, Some(20 + life * keys / 6));
        kill(child);
    }
    let report = broker.finish_with(topic, READ_BACK);
    assert_eq!(report["transactions"], false, "{report}");
    broker.verify_twice(topic, keys, &report);
    let again = broker.finish_with(topic, READ_BACK);
    assert_eq!(again["messages"], 0, "{again}");
    broker.verify_twice(topic, keys, &again);
}

#[test]
fn kafka_without_transactions_the_other_of_two_processes_takes_over() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("two-never", 20_000);
    broker.fill_twice(topic, keys);
    let first = broker.begin(topic, &format!("{READ_BACK} --kills 3"));
    broker.made(topic);
    broker.rows(topic, Some(10));
    let second = broker.begin(topic, READ_BACK);
    broker.rows(topic, Some(8_000));
    kill(first);
    broker.rows(topic, Some(16_000));
    ask_to_stop(second);
    let report = broker.finish_with(topic, READ_BACK);
    broker.verify_twice(topic, keys, &report);
}

#[test]
fn kafka_without_transactions_whoever_was_taken_for_dead_and_wakes_up_doubles_nothing() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("woken", 20_000);
    broker.fill_twice(topic, keys);
    let first = broker.begin(topic, READ_BACK);
    broker.made(topic);
    broker.rows(topic, Some(20));
    signal(&first, "-STOP");
    // The group gives it up, and whoever comes is given all of it.
    let second = broker.begin(topic, READ_BACK);
    broker.rows(topic, Some(12_000));
    signal(&first, "-CONT");
    broker.rows(topic, Some(keys));
    kill(second);
    ask_to_stop(first);
    let report = broker.finish_with(topic, READ_BACK);
    broker.verify_twice(topic, keys, &report);
}

#[test]
fn kafka_without_transactions_a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("broker-never", 20_000);
    broker.fill_twice(topic, keys);
    let child = broker.begin(topic, READ_BACK);
    broker.made(topic);
    for rows in [1_000, 10_000] {
        broker.rows(topic, Some(rows));
        broker.script("kill");
        broker.script("start");
    }
    broker.rows(topic, Some(keys));
    ask_to_stop(child);
    let report = broker.finish_with(topic, READ_BACK);
    broker.verify_twice(topic, keys, &report);
}

/// The most memory that a process had at one time, in MB.
fn most_memory(life: &Life) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", life.0.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    let kb: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kb / 1024
}

#[test]
fn kafka_a_slow_sink_holds_up_the_consumer_and_no_memory_grows() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("slow", 60_000);
    broker.make(topic);
    // 240 MB; the stages of a key come together, so that few keys are open whatever is read.
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut of = |key: u64| {
        ["A", "B", "C"].map(|stage| {
            // What can be packed is no load.
            let noise: String = (0..80).map(|_| format!("{:016x}", dice.below(u64::MAX))).collect();
            (key, stage, format!(r#""{key} {noise}""#))
        })
    };
    broker.send_in_order(topic, (0..keys).flat_map(&mut of));
    broker.script_with("slow", &["slowly", "700000"]);
    for (way, rows) in [("always", 2_500), ("never", 4_500)] {
        // A client's own buffer before the readers is bounded by a setting; it is made small beside what is measured.
        let more =
            format!("--transactions {way} --set client.id=slowly --set queued.max.messages.kbytes=1024");
        let life = broker.begin(topic, &more);
        broker.made(topic);
        broker.rows(topic, Some(rows));
        let most = most_memory(&life);
        println!("{way}: {most} MB at most after {rows} rows of {keys}");
        assert!(most < 160, "{most} MB with {way}");
        kill(life);
    }
}

#[test]
fn kafka_a_broker_that_knows_no_transactions_is_found_out_and_nothing_is_lost() {
    let Some(broker) = Broker::of("CORRELATE_KAFKA_OLD") else { return };
    let (topic, keys, session) = ("old", 10_000, "--set session.timeout.ms=2000");
    broker.fill_twice(topic, keys);
    for rows in [20, 5_000] {
        let child = broker.begin(topic, session);
        broker.made(topic);
        broker.rows(topic, Some(rows));
        kill(child);
    }
    let always = broker.command(topic, "--transactions always --until-end").output().expect("it starts");
    let words = said(&always.stderr);
    assert!(always.status.code() == Some(1) && words.contains("not supported by any of"), "{words}");
    let report = broker.finish_with(topic, session);
    assert_eq!(report["transactions"], false, "{report}");
    broker.verify_twice(topic, keys, &report);
}

#[cfg(feature = "kafka-ssl")]
#[test]
fn kafka_over_tls_whoever_says_the_password_joins() {
    let Some(broker) = Broker::there() else { return };
    let Ok(secure) = std::fs::read_to_string(broker.dir.join("secure")) else {
        eprintln!("SKIPPED: the broker speaks no TLS, as there was no openssl to certify it");
        return;
    };
    let (topic, keys) = ("secret", 5_000);
    broker.fill(topic, keys);
    let there = Broker { address: secure.trim().to_owned(), dir: broker.dir.clone() };
    let mut options = format!(
        "--set security.protocol=sasl_ssl --set ssl.ca.location={}",
        broker.dir.join("ca.pem").display()
    );
    options += " --set sasl.username=tests --set sasl.password=secret";
    let said = there.finish_with(topic, &format!("{options} --set sasl.mechanism=SCRAM-SHA-256"));
    assert_eq!(said["joined"], keys, "{said}");
    let again = there.finish_with(topic, &format!("{options} --set sasl.mechanism=PLAIN"));
    assert_eq!((&again["joined"], &again["messages"]), (&keys.into(), &0.into()), "{again}");
    broker.verify(topic, keys);
}

/// A measurement, in release: `cargo test --release -p correlate --features kafka kafka_rate -- --ignored --nocapture`.
#[test]
#[ignore = "measures, and compares nothing; correlate/README.md has its command"]
fn kafka_rate_end_to_end() {
    let Some(broker) = Broker::there() else { return };
    let (topic, keys) = ("rate", 1_000_000);
    broker.fill(topic, keys);
    let began = Instant::now();
    let mut command = broker.command(topic, "--until-end --report json --epoch 500 --snapshot 5000");
    let report = report(&command.output().expect("it starts"));
    let took = began.elapsed().as_secs_f64();
    println!("{} messages in {took:.1} s, {:.0} a second", report["messages"], 3e6 / took);
    assert_eq!(report["joined"], keys);
}
