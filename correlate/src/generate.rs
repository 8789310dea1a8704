//! Makes input to try the join with: as many stages and customers as one likes, in an order that tells nothing, and as
//! faulty as one likes.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use flate2::{Compression, write::GzEncoder};

use crate::{
    error::Error,
    progress::say,
    random::{Random, mix},
    record::quote,
    report::{self, count},
    text::MOST_STAGES,
};

/// Options of `generate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Generate {
    /// Folder for the files; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Messages of each stage, one for each customer
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    messages: u64,
    /// The stages, 2 to 16 names
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',', default_value = "A,B,C")]
    stages: Vec<String>,
    /// Files that the messages are spread over, whatever their key
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// The files' format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
    /// What keys are
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    keys: Keys,
    /// The field for the stage
    #[arg(long, value_name = "FIELD", default_value = "stage")]
    stage: String,
    /// The field for the key
    #[arg(long, value_name = "FIELD", default_value = "key")]
    key: String,
    /// How many of a thousand messages are left out, so that their keys stay incomplete
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    missing: f64,
    /// How many of a thousand messages come twice
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    duplicates: f64,
    /// After how many of a thousand messages there is a broken line
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    broken: f64,
    /// What everything is made from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Replace files of the same names
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    #[default]
    Ndjson,
    /// The same, compressed
    #[value(name = "ndjson.gz")]
    Gz,
    /// Values with commas between them
    Csv,
    /// Each of them in turn
    Mixed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Keys {
    /// Numbers, from 1 on
    #[default]
    Integer,
    /// Short texts
    String,
}

impl Format {
    fn of(self, partition: usize) -> Format {
        match self {
            Format::Mixed => [Format::Ndjson, Format::Gz, Format::Csv][partition % 3],
            one => one,
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Format::Ndjson | Format::Mixed => "ndjson",
            Format::Gz => "ndjson.gz",
            Format::Csv => "csv",
        }
    }
}

impl Generate {
    /// Writes the files.
    pub(crate) fn run(&self) -> Result<(), Error> {
        if !(2..=MOST_STAGES).contains(&self.stages.len()) {
            return Err(Error::Request(format!("a join has 2 to {MOST_STAGES} stages")));
        }
        let dir = &self.output;
        fs::create_dir_all(dir).map_err(Error::file("make folder", dir))?;
        let mut files = Vec::new();
        for partition in 0..usize::from(self.partitions) {
            let format = self.format.of(partition);
            let path = dir.join(format!("input-{partition:02}.{}", format.ending()));
            if path.exists() && !self.overwrite {
                let path = path.display();
                return Err(Error::Request(format!(
                    "{path} is there already: name another --output, or say --overwrite"
                )));
            }
            files.push(Some((path, format)));
        }
        let mut made = Vec::new();
        let written = self.write(files, &mut made);
        if written.is_err() {
            // Half an input looks like a whole one.
            for path in made {
                let _ = fs::remove_file(path);
            }
        }
        let (messages, broken) = written?;
        let (messages, files) = (count(messages), self.partitions);
        let broken = if broken > 0 { format!(", {} broken lines", count(broken)) } else { String::new() };
        report::print(format!("{messages} messages in {files} files{broken}: {}", dir.display()))
    }

    fn write(
        &self,
        files: Vec<Option<(PathBuf, Format)>>,
        made: &mut Vec<PathBuf>,
    ) -> Result<(u64, u64), Error> {
        let mut random = Random::new(self.seed);
        let mut order = Vec::with_capacity(self.messages as usize * self.stages.len());
        for message in 0..self.messages * self.stages.len() as u64 {
            if random.chance(self.missing / 1000.0) {
                continue;
            }
            order.push(message);
            if random.chance(self.duplicates / 1000.0) {
                order.push(message);
            }
        }
        random.shuffle(&mut order);
        let (mut line, mut broken, messages) = (Vec::new(), 0, order.len());
        let n = files.len();
        for (partition, file) in files.into_iter().enumerate() {
            let Some((path, format)) = file else { continue };
            made.push(path.clone());
            let failed = || Error::file("write", &path);
            let mut file = Sink::new(&path, format)?;
            if format == Format::Csv {
                let header = [&self.stage, &self.key, "amount", "note"];
                line.clear();
                write_csv(&mut line, &header);
                file.writer().write_all(&line).map_err(failed())?;
            }
            for message in &order[partition * messages / n..(partition + 1) * messages / n] {
                line.clear();
                let (stage, customer) = (message / self.messages, message % self.messages + 1);
                self.line(&mut line, format, stage as usize, customer);
                if random.chance(self.broken / 1000.0) {
                    broken += 1;
                    // Half an object is none; of CSV the stage alone, as half a line may look like a whole one.
                    let until = match format {
                        Format::Csv => memchr::memchr(b',', &line).unwrap_or(0),
                        _ => line.len() / 2,
                    };
                    let half = [&line[..until], b"\n"].concat();
                    file.writer().write_all(&half).map_err(failed())?;
                }
                file.writer().write_all(&line).map_err(failed())?;
            }
            file.finish().map_err(failed())?;
            if messages > 20_000_000 {
                say(format!("{}", path.display()));
            }
        }
        Ok((messages as u64, broken))
    }

    fn line(&self, line: &mut Vec<u8>, format: Format, stage: usize, customer: u64) {
        let chance = mix(mix(self.seed ^ stage as u64) ^ customer);
        let amount = format!("{}.{:02}", chance % 1000, chance >> 32 & 63);
        let note = ["", "paid", "on hold, \"maybe\"", "größer als üblich"][(chance >> 40) as usize % 4];
        let key = match self.keys {
            Keys::Integer => customer.to_string(),
            Keys::String => format!("c{customer:08}"),
        };
        if format == Format::Csv {
            write_csv(line, &[&self.stages[stage], &key, &amount, note]);
            return;
        }
        for (before, name) in [("{", &self.stage), (",", &self.key)] {
            line.extend_from_slice(before.as_bytes());
            quote(line, name);
            line.push(b':');
            match (before, self.keys) {
                ("{", _) => quote(line, &self.stages[stage]),
                (_, Keys::Integer) => line.extend_from_slice(key.as_bytes()),
                (_, Keys::String) => quote(line, &key),
            }
        }
        line.extend_from_slice(b",\"amount\":");
        line.extend_from_slice(amount.as_bytes());
        line.extend_from_slice(b",\"note\":");
        quote(line, note);
        line.extend_from_slice(b"}\n");
    }
}

fn write_csv(line: &mut Vec<u8>, fields: &[&str]) {
    let mut writer = csv::Writer::from_writer(&mut *line);
    // Writing into memory does not fail.
    let _ = writer.write_record(fields);
    let _ = writer.flush();
}

enum Sink {
    Plain(BufWriter<File>),
    Packed(GzEncoder<BufWriter<File>>),
}

impl Sink {
    fn new(path: &Path, format: Format) -> Result<Sink, Error> {
        let file = File::create(path).map_err(Error::file("make", path))?;
        let file = BufWriter::with_capacity(1 << 16, file);
        Ok(match format {
            Format::Gz => Sink::Packed(GzEncoder::new(file, Compression::fast())),
            Format::Ndjson | Format::Csv | Format::Mixed => Sink::Plain(file),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Sink::Plain(file) => file,
            Sink::Packed(file) => file,
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Sink::Plain(mut file) => file.flush(),
            Sink::Packed(file) => file.finish()?.flush(),
        }
    }
}
