//! Compares strategies on simulated fleets:
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --scenario S1 --strategy p2c --seeds 5
//! ```
//!
//! Without `--scenario`, all of S1 to S8; without `--strategy`, all. `--fleet FILE` is a fleet of
//! yours in TOML, with the fields of [`Fleet`]. All three may be repeated.
//!
//! `--csv FILE` writes a line for each run, `--pictures FOLDER` two pictures for each fleet: how long
//! calls took, and what the servers held. `--table FILE` writes one table of all fleets into a
//! document, between the lines `<!-- table -->` and `<!-- end of table -->`; what is in it of other
//! fleets and strategies stays, so that a long table can be made piece by piece. It draws the pictures
//! beside the document that this shows: `choosing.md` those of S4 by the names `choosing-s4.svg` and
//! `choosing-s4-load.svg`.
//!
//! `--replay FILE` takes the calls of a real client, as a [`Recorder`](waypost::sim::Recorder) wrote
//! them, and tells what the strategies would have made of them.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{File, create_dir_all, read_to_string, write};
use std::io::{BufReader, IsTerminal as _, stderr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use waypost::sim::{Fleet, Report, Rule, Trace, csv, latency_picture, load_picture, run, table};
use waypost::strategy::{
    Adaptive, LeastConn, LoadWeighted, P2c, Prequal, Random, RoundRobin, SmoothWeighted,
};

const SCENARIOS: [&str; 8] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];
const STRATEGIES: [&str; 11] = [
    "random",
    "round-robin",
    "smooth-weighted",
    "load-weighted",
    "least-conn",
    "p2c",
    "p2c-peak-ewma",
    "adaptive",
    "prequal",
    "oracle-p2c",
    "oracle-jsq",
];

const USAGE: &str = "\
usage: simulate [--scenario S1 … S8] [--fleet FILE] [--strategy NAME] [--seeds N]
                [--csv FILE] [--pictures FOLDER] [--table FILE]
       simulate --replay FILE [--strategy NAME] [--seeds N]

Without --scenario and --fleet, all scenarios; without --strategy, all strategies. These three may be
repeated. A fleet is a TOML file with the fields of `sim::Fleet`; what is replayed is what a `sim::Recorder`
wrote. Strategies are";

const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->";

/// The reports of one fleet, by strategy.
type Rows = Vec<(String, Vec<Report>)>;

#[derive(Default)]
struct Asked {
    fleets: Vec<(String, Fleet)>,
    strategies: Vec<String>,
    seeds: Option<NonZeroU64>,
    csv: Option<PathBuf>,
    pictures: Option<PathBuf>,
    table: Option<PathBuf>,
    replay: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = asked()?;
    if let Some(file) = &asked.replay {
        return replay(file, &asked);
    }
    let mut all = Vec::new();
    for (name, fleet) in &asked.fleets {
        let rows = simulate(name, fleet, &asked)?;
        println!("{name}, {} seeds\n\n{}", asked.seeds(), table(&rows));
        if let Some(folder) = &asked.pictures {
            draw(folder, name, &rows)?;
        }
        all.push((name.clone(), rows));
    }
    if let Some(file) = &asked.csv {
        let named = |(fleet, rows): &(String, Rows)| {
            let row = |(name, reports): &(String, Vec<Report>)| {
                (format!("{fleet} {name}"), reports.clone())
            };
            rows.iter().map(row).collect::<Rows>()
        };
        write(file, csv(&all.iter().flat_map(named).collect::<Rows>()))?;
    }
    if let Some(file) = &asked.table {
        document(file, &all)?;
    }
    Ok(())
}

fn asked() -> Result<Asked, Box<dyn Error>> {
    let mut asked = Asked::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            println!("{USAGE} {}.", STRATEGIES.join(", "));
            std::process::exit(0);
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{flag}` needs a value"))?;
        match flag.as_str() {
            "--scenario" => asked.fleets.push((value.clone(), named(&value)?)),
            "--strategy" => asked.strategies.push(value),
            "--fleet" => {
                let fleet = Fleet::from_toml(&read_to_string(&value)?)?;
                let name = Path::new(&value).file_stem().unwrap_or_default();
                asked.fleets.push((name.to_string_lossy().into(), fleet));
            }
            "--seeds" => {
                let seeds = value.parse().map_err(|error| format!("--seeds: {error}"))?;
                asked.seeds = Some(seeds);
            }
            "--csv" => asked.csv = Some(value.into()),
            "--pictures" => asked.pictures = Some(value.into()),
            "--table" => asked.table = Some(value.into()),
            "--replay" => asked.replay = Some(value.into()),
            _ => {
                let known = "--scenario, --fleet, --strategy, --seeds, --csv, --pictures, --table, \
                             --replay";
                return Err(format!("`{flag}` is none of {known}").into());
            }
        }
    }
    if asked.fleets.is_empty() {
        for name in SCENARIOS {
            asked.fleets.push((name.to_owned(), named(name)?));
        }
    }
    if asked.strategies.is_empty() {
        asked.strategies.extend(STRATEGIES.map(String::from));
    }
    Ok(asked)
}

impl Asked {
    fn seeds(&self) -> u64 {
        self.seeds.map_or(1, NonZeroU64::get)
    }
}

fn simulate(name: &str, fleet: &Fleet, asked: &Asked) -> Result<Rows, Box<dyn Error>> {
    let mut rows = Vec::new();
    for strategy in &asked.strategies {
        let rule = rule(strategy)?;
        // Which lives on probes, and has three for each call.
        let probes = if strategy == "prequal" {
            3.0
        } else {
            fleet.probes
        };
        let fleet = Fleet {
            probes,
            ..fleet.clone()
        };
        let mut reports = Vec::new();
        for seed in 1..=asked.seeds() {
            if stderr().is_terminal() {
                eprint!(
                    "\r\x1b[K{name} {strategy}: seed {seed} of {}",
                    asked.seeds()
                );
            }
            reports.push(run(&fleet, &rule, seed)?);
        }
        rows.push((strategy.clone(), reports));
    }
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(rows)
}

/// Those strategies that need no more than one client sees.
fn replay(file: &Path, asked: &Asked) -> Result<(), Box<dyn Error>> {
    let trace = Trace::read(BufReader::new(File::open(file)?))?;
    let mut rows = vec![("as it was".to_owned(), vec![trace.recorded()])];
    for strategy in asked
        .strategies
        .iter()
        .filter(|it| !it.starts_with("oracle"))
    {
        let rule = rule(strategy)?;
        let reports = (1..=asked.seeds()).map(|seed| trace.replay(&rule, seed));
        rows.push((strategy.clone(), reports.collect::<Result<_, _>>()?));
    }
    println!("{}", table(&rows));
    println!("Shares of the calls in %:\n");
    let ids: Vec<String> = trace.endpoints().map(ToString::to_string).collect();
    println!(
        "| strategy | {} |\n| --- |{}",
        ids.join(" | "),
        " --- |".repeat(ids.len())
    );
    for (name, reports) in &rows {
        let calls: u64 = reports.iter().map(|report| report.calls).sum();
        let share = |at: usize| {
            let own: u64 = reports.iter().map(|report| report.by_server[at]).sum();
            format!("{:.1}", own as f64 / calls as f64 * 100.0)
        };
        let shares: Vec<String> = (0..ids.len()).map(share).collect();
        println!("| {name} | {} |", shares.join(" | "));
    }
    if let Some(folder) = &asked.pictures {
        create_dir_all(folder)?;
        let picture = latency_picture("how long calls took, and would have", &rows)?;
        write(folder.join("replay-latency.svg"), picture)?;
    }
    Ok(())
}

fn draw(folder: &Path, name: &str, rows: &Rows) -> Result<(), Box<dyn Error>> {
    create_dir_all(folder)?;
    write(
        folder.join(format!("{name}-latency.svg")),
        latency(name, rows)?,
    )?;
    write(folder.join(format!("{name}-load.svg")), load(name, rows)?)?;
    Ok(())
}

type Paint = fn(&str, &Rows) -> Result<String, waypost::Error>;

fn latency(name: &str, rows: &Rows) -> Result<String, waypost::Error> {
    latency_picture(&format!("{name}: how long calls took"), rows)
}

fn load(name: &str, rows: &Rows) -> Result<String, waypost::Error> {
    load_picture(&format!("{name}: calls at the servers"), rows)
}

/// Writes the table of a document, and the pictures that it shows.
fn document(file: &Path, all: &[(String, Rows)]) -> Result<(), Box<dyn Error>> {
    let text = read_to_string(file)?;
    let cut = text.split_once(BEGIN);
    let cut = cut.and_then(|(head, rest)| {
        let (before, tail) = rest.split_once(END)?;
        Some((head, before, tail))
    });
    let (head, before, tail) = cut.ok_or("the document has no place for a table")?;
    let mut table = Table::read(before);
    for (fleet, rows) in all {
        for (strategy, reports) in rows {
            table.set(strategy, fleet, cell(reports));
        }
    }
    write(
        file,
        format!("{head}{BEGIN}\n{}\n{END}{tail}", table.text()),
    )?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    for (fleet, rows) in all {
        let pictures: [(&str, Paint); 2] = [("", latency), ("-load", load)];
        for (suffix, paint) in pictures {
            let picture = format!("{stem}-{}{suffix}.svg", fleet.to_lowercase());
            if text.contains(&format!("({picture})")) {
                write(file.with_file_name(picture), paint(fleet, rows)?)?;
            }
        }
    }
    Ok(())
}

/// The mean and the 99th percentile; errors where there are any.
fn cell(reports: &[Report]) -> String {
    let mean = |of: fn(&Report) -> f64| reports.iter().map(of).sum::<f64>() / reports.len() as f64;
    let (times, errors) = (
        (mean(|it| it.mean_ms), mean(|it| it.p99_ms)),
        mean(Report::error_share) * 100.0,
    );
    let mut text = format!("{:.1} / {:.0}", times.0, times.1);
    if errors > 0.0 {
        let _ = write!(text, " ({errors:.3} %)");
    }
    text
}

/// One row for each strategy, and one column for each fleet.
struct Table {
    fleets: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// Of a table in Markdown; what is none is empty.
    fn read(text: &str) -> Self {
        let mut lines = text.lines().filter_map(|line| {
            let cells = line.strip_prefix('|')?.strip_suffix('|')?;
            Some(cells.split('|').map(|cell| cell.trim().to_owned()))
        });
        let fleets = lines.next().map(|cells| cells.skip(1).collect());
        // After the line of dashes.
        let rows = lines.skip(1);
        let rows = rows.filter_map(|mut cells| Some((cells.next()?, cells.collect())));
        Self {
            fleets: fleets.unwrap_or_default(),
            rows: rows.collect(),
        }
    }

    fn set(&mut self, strategy: &str, fleet: &str, cell: String) {
        let column = self.fleets.iter().position(|it| it == fleet);
        let column = column.unwrap_or_else(|| {
            self.fleets.push(fleet.to_owned());
            self.fleets.len() - 1
        });
        let row = self.rows.iter().position(|(it, _)| it == strategy);
        let row = row.unwrap_or_else(|| {
            self.rows.push((strategy.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        let cells = &mut self.rows[row].1;
        cells.resize(cells.len().max(column + 1), String::new());
        cells[column] = cell;
    }

    fn text(&self) -> String {
        let mut text = format!("| strategy | {} |\n| --- |", self.fleets.join(" | "));
        text.push_str(&" --- |".repeat(self.fleets.len()));
        text.push('\n');
        for (strategy, cells) in &self.rows {
            let _ = writeln!(text, "| {strategy} | {} |", cells.join(" | "));
        }
        text
    }
}

fn named(name: &str) -> Result<Fleet, String> {
    Fleet::named(name).ok_or_else(|| format!("scenario `{name}` is none of {SCENARIOS:?}"))
}

fn rule(name: &str) -> Result<Rule, String> {
    Ok(match name {
        "random" => Rule::of(Random::new()),
        "round-robin" => Rule::of(RoundRobin::new()),
        "smooth-weighted" => Rule::of(SmoothWeighted::new()),
        "load-weighted" => Rule::of(LoadWeighted::new()),
        "least-conn" => Rule::of(LeastConn::new()),
        "p2c" => Rule::of(P2c::new()),
        "p2c-peak-ewma" => Rule::of(P2c::peak_ewma()),
        "adaptive" => Rule::of(Adaptive::new()),
        "prequal" => Rule::of(Prequal::new()),
        "oracle-p2c" => Rule::Oracle(2),
        "oracle-jsq" => Rule::Shortest,
        _ => return Err(format!("strategy `{name}` is none of {STRATEGIES:?}")),
    })
}
