//! Pictures of reports, as SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use super::{LoadSample, Report};
use crate::error::Error;

const SIZE: (u32, u32) = (860, 480);

/// Of one of several panels.
const PANEL: (u32, u32) = (420, 260);
const PANELS_ABREAST: usize = 3;
const TITLE_HEIGHT: u32 = 30;

/// Where an axis by powers of ten shows none.
const IDLE: f64 = 0.5;

/// Told apart by those who see no red or green, too (Okabe and Ito), and three more.
const COLORS: [RGBColor; 11] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
    RGBColor(240, 228, 66),
    RGBColor(120, 80, 40),
    RGBColor(90, 60, 160),
];

/// The rarest call that a line shows.
const RAREST: f64 = 1e-4;

/// How many calls took longer than how long: a line for each strategy, of all its reports'
/// calls together, with both axes by powers of ten so that the tail is seen.
///
/// # Errors
///
/// When there are no calls to show.
///
/// ```
/// use waypost::sim::{Fleet, Rule, latency_picture, run};
/// use waypost::strategy::P2c;
///
/// let fleet = Fleet { clients: 2, servers: 3, seconds: 2.0, warm_up_seconds: 0.5, ..Fleet::default() };
/// let p2c = run(&fleet, &Rule::of(P2c::new()), 1)?;
/// let svg = latency_picture("a small fleet", &[("p2c".to_owned(), vec![p2c])])?;
/// assert!(svg.starts_with("<svg") && svg.contains("a small fleet"));
/// # Ok::<(), waypost::Error>(())
/// ```
pub fn latency_picture(title: &str, rows: &[(String, Vec<Report>)]) -> Result<String, Error> {
    let lines: Vec<(&str, Vec<(f64, f64)>)> = rows
        .iter()
        .map(|(name, reports)| (name.as_str(), rarities(reports)))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let times = || lines.iter().flat_map(|(_, line)| line).map(|point| point.0);
    let least = times().fold(f64::INFINITY, f64::min);
    let most = times().fold(0.0, f64::max);
    if most <= 0.0 {
        return Err(Error::invalid(
            "picture",
            title,
            "there are no calls to show",
        ));
    }
    draw(title, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (least.max(0.01)..most * 1.1).log_scale(),
                (RAREST..1.0_f64).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc("milliseconds")
            .y_desc("calls that took longer")
            .x_label_formatter(&|ms| format!("{ms}"))
            .y_label_formatter(&|share| format!("{} %", share * 100.0))
            .light_line_style(WHITE)
            .draw()?;
        let lines = lines.iter().map(|(name, line)| (*name, line.as_slice()));
        plot(&mut chart, lines, SeriesLabelPosition::LowerLeft)?;
        Ok(())
    })
}

/// The calls at the servers over time, a panel for each strategy of its first report: at the fullest
/// server, at one of ten, and at the middle one. All panels have one scale, by powers of ten.
///
/// # Errors
///
/// When there was no time to show.
pub fn load_picture(title: &str, rows: &[(String, Vec<Report>)]) -> Result<String, Error> {
    let panels: Vec<(&str, &[LoadSample])> = rows
        .iter()
        .filter_map(|(name, reports)| Some((name.as_str(), reports.first()?.load_over_time())))
        .filter(|(_, samples)| samples.last().is_some_and(|last| last.seconds > 0.0))
        .collect();
    if panels.is_empty() {
        return Err(Error::invalid("picture", title, "there is no time to show"));
    }
    let samples = || panels.iter().flat_map(|(_, samples)| *samples);
    let last = samples().map(|it| it.seconds).fold(0.0, f64::max);
    let most = samples().filter_map(|it| it.calls.last()).max();
    let most = f64::from(most.copied().unwrap_or_default()).max(1.0);
    let columns = panels.len().min(PANELS_ABREAST);
    let lines = panels.len().div_ceil(columns);
    let size = (
        PANEL.0 * columns as u32,
        PANEL.1 * lines as u32 + TITLE_HEIGHT,
    );
    draw(title, size, |area| {
        let area = area.titled(title, ("sans-serif", 18))?;
        for ((name, samples), area) in panels.iter().zip(area.split_evenly((lines, columns))) {
            let mut chart = ChartBuilder::on(&area)
                .caption(name, ("sans-serif", 15))
                .margin(8)
                .x_label_area_size(36)
                .y_label_area_size(48)
                .build_cartesian_2d(0.0..last, (IDLE..most * 1.2).log_scale())?;
            chart
                .configure_mesh()
                .x_desc("seconds")
                .y_desc("calls at a server")
                .x_labels(5)
                .max_light_lines(1)
                .y_label_formatter(&|calls| format!("{calls}"))
                .light_line_style(WHITE)
                .draw()?;
            let lines = [("fullest", 1.0), ("one of ten", 0.9), ("middle", 0.5)]
                .map(|(name, share)| (name, at_share(samples, share)));
            let lines = lines.iter().map(|(name, line)| (*name, line.as_slice()));
            plot(&mut chart, lines, SeriesLabelPosition::UpperRight)?;
        }
        Ok(())
    })
}

/// The calls at the server that this share of the servers has no more than, over time.
fn at_share(samples: &[LoadSample], share: f64) -> Vec<(f64, f64)> {
    let at = |calls: &[u32]| calls[((calls.len() - 1) as f64 * share) as usize];
    samples
        .iter()
        .map(|sample| (sample.seconds, f64::from(at(&sample.calls)).max(IDLE)))
        .collect()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Lines with their names, each in a colour of its own.
fn plot<'a, 'b: 'a, 'l, X, Y>(
    chart: &mut Chart<'a, 'b, X, Y>,
    lines: impl Iterator<Item = (&'l str, &'l [(f64, f64)])>,
    names: SeriesLabelPosition,
) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for ((name, line), color) in lines.zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(names)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn draw(
    title: &str,
    size: (u32, u32),
    paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<String, Error> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let filled = area.fill(&WHITE).map_err(Into::into);
        filled
            .and_then(|()| paint(&area))
            .and_then(|()| Ok(area.present()?))
    };
    drawn.map_err(|error| Error::invalid("picture", title, error))?;
    Ok(svg)
}

/// Twelve points to each power of ten: how long the calls took that so many took longer than.
fn rarities(reports: &[Report]) -> Vec<(f64, f64)> {
    let steps = (-12.0 * RAREST.log10()) as u32;
    let shares = (0..=steps).map(|step| 10_f64.powf(-f64::from(step) / 12.0));
    let mean = |share: f64| {
        let sum: f64 = reports
            .iter()
            .map(|report| report.quantile_ms(1.0 - share))
            .sum();
        sum / reports.len() as f64
    };
    let points = shares.map(|share| (mean(share), share));
    points.filter(|point| point.0 > 0.0).collect()
}
