//! The kill matrix: the main job on a log, killed again and again, and looked at by the [audit](crate::audit) at the end.
//!
//! Each life of the program is ended by `kill -9` at a time that chance picks, or by itself where it hurts most: in an epoch
//! that chance picks, when the rows are on disk and the commit is not. Its own plan kills some of its workers meanwhile. Between two lives the log suffers what a crash or a disk may do to it: tails are torn, rubbish stands behind
//! what was committed, and bits flip. A flipped bit in what was committed has to be reported with file and offset, and to
//! leave everything as it was; then it is flipped back.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    audit::audit,
    chart,
    error::Error,
    progress::say,
    random::Random,
    report::{self, Form, count},
    status::{Point, Seen},
};

/// Options of `torture`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Torture {
    /// Folder for the log, empty or not there
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Times that the process is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u64,
    /// Messages in each of the three streams; where they are through before the kills, it begins again with other streams
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    messages: u64,
    /// What the times, the streams and the damage are made from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// The longest that a life lasts, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    life: u64,
    /// Sinks
    #[arg(long, value_name = "N", default_value_t = 2)]
    shards: u16,
    /// Control: leave out a guarantee of the log, and see the same test fail
    #[arg(long, value_name = "GUARANTEE")]
    without: Option<String>,
    /// Draw the throughput over time as an SVG, with the restarts marked
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// For whom the report is
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    report: Form,
}

/// What was done, and what came of it.
#[derive(Debug, Default)]
struct Toll {
    kills: u64,
    before_commit: u64,
    jobs: u64,
    messages: u64,
    torn: u64,
    rubbish: u64,
    flips: u64,
    flips_in_tail: u64,
    wrong: Vec<String>,
}

impl Torture {
    /// Kills until it is enough, and says whether every job came out exactly right.
    pub(crate) fn run(&self) -> Result<bool, Error> {
        let began = Instant::now();
        let (mut random, mut toll) = (Random::new(self.seed), Toll::default());
        let mut history: Vec<Point> = Vec::new();
        while toll.kills < self.kills && toll.wrong.is_empty() {
            let dir = self.log.join(format!("job-{:03}", toll.jobs));
            self.job(&dir, toll.jobs, &mut random, &mut toll)?;
            toll.jobs += 1;
            if self.chart.is_some() {
                history.extend(Seen::of(&dir)?.after(&history));
            }
            if toll.wrong.is_empty() {
                fs::remove_dir_all(&dir).map_err(Error::file("remove", &dir))?;
            }
        }
        let _ = fs::remove_dir(&self.log);
        if let Some(path) = &self.chart {
            let title = format!(
                "{} messages committed in {} jobs; each red line is a start after a kill -9",
                count(toll.messages),
                toll.jobs
            );
            chart::draw(path, &title, &history)?;
        }
        let is_exact = toll.wrong.is_empty();
        match self.report {
            Form::Json => report::print(toll.json(is_exact))?,
            Form::Text => report::print(toll.words(is_exact, began.elapsed()))?,
        }
        Ok(is_exact)
    }

    /// One job, from its beginning to its end or to the last kill.
    fn job(&self, dir: &Path, number: u64, random: &mut Random, toll: &mut Toll) -> Result<(), Error> {
        let seed = self.seed.wrapping_add(number);
        // A life that is too short to get anywhere is followed by a longer one: a job that is killed often enough would
        // never end.
        let (mut committed, mut longest) = (0, self.life);
        loop {
            let is_last = toll.kills >= self.kills;
            let (plan, until) = (random.next(), self.until(is_last, longest, random));
            let mut child = self.start(dir, seed, plan, until)?;
            if !live(&mut child, until)? {
                toll.kills += 1;
                toll.before_commit += u64::from(matches!(until, Until::Commit(_)));
                let at = Seen::of(dir).map(|seen| seen.messages()).unwrap_or_default();
                longest = if at > committed { self.life } else { longest + longest / 2 };
                committed = at;
                if let Form::Text = self.report {
                    say(format!("  kill {:>4}: {} messages were committed", toll.kills, count(at)));
                }
                self.damage(dir, seed, random, toll)?;
                continue;
            }
            let audit = audit(dir)?;
            toll.messages += audit.right;
            let said = said(&mut child);
            if !audit.is_exact() || said.0 != Some(0) {
                toll.wrong
                    .push(format!("job {number}: {audit}; the program ended with {:?}: {}", said.0, said.1));
            }
            return Ok(());
        }
    }

    /// How the next life is to end.
    fn until(&self, is_last: bool, longest: u64, random: &mut Random) -> Until {
        let (is_by_itself, epoch, micros) =
            (random.below(4) == 0, 1 + random.below(4), 1 + random.below(longest * 1000));
        match (is_last, &self.without) {
            (true, _) => Until::Done,
            // The control is not to depend on chance: this is where the guarantee is needed.
            (false, Some(_)) => Until::Commit(epoch),
            (false, None) if is_by_itself => Until::Commit(epoch),
            (false, None) => Until::Killed(Duration::from_micros(micros)),
        }
    }

    fn start(&self, dir: &Path, seed: u64, plan: u64, until: Until) -> Result<Child, Error> {
        let program = std::env::current_exe().map_err(Error::file("find", "this program"))?;
        let mut command = Command::new(&program);
        command.arg("--log").arg(dir).args(["--quiet", "--epoch", "20", "--snapshot", "100"]);
        // Small segments, so that those are removed that nobody needs.
        command.args(["--segment-bytes", "1000000"]);
        command.args(["--messages", &self.messages.to_string(), "--seed", &seed.to_string()]);
        command.args(["--kills", &(plan % 4).to_string(), "--shards", &self.shards.to_string()]);
        if let Until::Commit(epoch) = until {
            command.args(["--die-in-epoch", &epoch.to_string()]);
        }
        if let Some(guarantee) = &self.without {
            command.args(["--without", guarantee]);
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(Error::file("start", program))
    }

    /// What may happen to a log between two lives.
    fn damage(&self, dir: &Path, seed: u64, random: &mut Random, toll: &mut Toll) -> Result<(), Error> {
        // Without its guarantee nothing more is needed.
        let Ok(seen) = Seen::of(dir) else { return Ok(()) };
        if self.without.is_some() || seen.messages() == 0 {
            return Ok(());
        }
        match random.below(4) {
            0 => {
                // Behind what was committed anything may stand.
                if let Some(path) = last_segment(&dir.join(format!("sink-{:02}", random.below(12))))? {
                    let rubbish: Vec<u8> = (0..random.below(5_000)).map(|_| random.next() as u8).collect();
                    let mut file = append(&path)?;
                    file.write_all(&rubbish).map_err(Error::file("write", &path))?;
                    toll.rubbish += 1;
                }
            }
            1 => {
                // The commit that was under way is written by half.
                if let Some(path) = last_segment(&dir.join("commits"))? {
                    let half: Vec<u8> = [0xf7, b'c', b'f', 0x1a, 200, 0, 0, 0, 1, 0, 0, 0].into();
                    let mut file = append(&path)?;
                    file.write_all(&half[..1 + random.below(11) as usize])
                        .map_err(Error::file("write", &path))?;
                    toll.torn += 1;
                }
            }
            2 => self.flip(dir, seed, random, toll)?,
            _ => {}
        }
        Ok(())
    }

    /// Flips a bit of a commit; what follows has to be noticed.
    fn flip(&self, dir: &Path, seed: u64, random: &mut Random, toll: &mut Toll) -> Result<(), Error> {
        let Some(path) = last_segment(&dir.join("commits"))? else { return Ok(()) };
        let len = fs::metadata(&path).map_err(Error::file("read", &path))?.len();
        let (at, bit) = (random.below(len), random.below(8));
        turn(&path, at, bit)?;
        let mut child = self.start(dir, seed, 0, Until::Done)?;
        live(&mut child, Until::Done)?;
        let (code, words) = said(&mut child);
        if code == Some(0) {
            // It was the last commit: as good as one that was torn, and made again.
            toll.flips_in_tail += 1;
            return Ok(());
        }
        toll.flips += 1;
        let named = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Where a snapshot is as new as the commit, it is the one that does not fit.
        let is_named = words.contains(&named) || words.contains("snapshots");
        if code != Some(1) || !words.contains("damaged at byte") || !is_named {
            toll.wrong
                .push(format!("bit {bit} of byte {at} of {} was flipped: {code:?} {words}", path.display()));
        }
        turn(&path, at, bit)
    }
}

/// How a life is to end.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// By `kill -9`, after so long.
    Killed(Duration),
    /// By itself, in the so many-th epoch, between its rows and its commit.
    Commit(u64),
    /// With its work.
    Done,
}

/// Waits for the end of a life, or makes it; `false` if it had no end of its own.
fn live(child: &mut Child, until: Until) -> Result<bool, Error> {
    let failed = || Error::file("wait for", "the program");
    if let Until::Killed(after) = until {
        thread::sleep(after);
        if child.try_wait().map_err(failed())?.is_none() {
            child.kill().and_then(|()| child.wait()).map_err(failed())?;
            return Ok(false);
        }
    }
    // All other codes are what the system says of a process that aborts.
    Ok(matches!(child.wait().map_err(failed())?.code(), Some(0..=3)))
}

/// Its exit code, and its words on standard error.
fn said(child: &mut Child) -> (Option<i32>, String) {
    let mut words = String::new();
    if let Some(error) = &mut child.stderr {
        let _ = error.read_to_string(&mut words);
    }
    (child.wait().ok().and_then(|status| status.code()), words.trim().to_owned())
}

fn last_segment(dir: &Path) -> Result<Option<PathBuf>, Error> {
    if !dir.exists() {
        return Ok(None);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read folder", dir))? {
        paths.push(entry.map_err(Error::file("read folder", dir))?.path());
    }
    Ok(paths.into_iter().max())
}

fn append(path: &Path) -> Result<File, Error> {
    OpenOptions::new().append(true).open(path).map_err(Error::file("open", path))
}

fn turn(path: &Path, at: u64, bit: u64) -> Result<(), Error> {
    let turned = OpenOptions::new().read(true).write(true).open(path).and_then(|mut file| {
        let mut byte = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[byte[0] ^ 1 << bit])
    });
    turned.map_err(Error::file("change", path))
}

impl Toll {
    fn json(&self, is_exact: bool) -> Value {
        json!({
            "exact": is_exact,
            "kills": self.kills,
            "kills_before_a_commit": self.before_commit,
            "jobs": self.jobs,
            "messages_right": self.messages,
            "torn_commits": self.torn,
            "rubbish_behind_rows": self.rubbish,
            "flipped_bits_reported": self.flips,
            "flipped_bits_in_the_last_commit": self.flips_in_tail,
            "wrong": self.wrong,
        })
    }

    fn words(&self, is_exact: bool, took: Duration) -> String {
        let mut words = format!(
            "{} kills in {} jobs, {} of them between rows and commit; {} torn commits, {} times rubbish behind the rows, {} flipped bits reported, {} in a \
             last commit; {:.1} s\n",
            self.kills,
            self.jobs,
            self.before_commit,
            self.torn,
            self.rubbish,
            self.flips,
            self.flips_in_tail,
            took.as_secs_f64()
        );
        self.wrong.iter().for_each(|wrong| words += &format!("  {wrong}\n"));
        words
            + &if is_exact {
                format!("exact: {} messages joined, every one once", count(self.messages))
            } else {
                "WRONG".to_owned()
            }
    }
}
