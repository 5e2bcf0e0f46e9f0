//! Pictures of reports, as SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use super::Report;
use crate::error::Error;

const SIZE: (u32, u32) = (860, 480);

/// Told apart by those who see no red or green, too (Okabe and Ito).
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
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
    draw(title, |area| {
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

/// The calls at the servers over time: at the fullest, at one of ten, and at the middle one.
///
/// # Errors
///
/// When there was no time to show.
pub fn load_picture(title: &str, report: &Report) -> Result<String, Error> {
    let samples = report.load_over_time();
    let last = samples.last().map_or(0.0, |sample| sample.seconds);
    if last <= 0.0 {
        return Err(Error::invalid("picture", title, "there is no time to show"));
    }
    let line = |share: f64| -> Vec<(f64, f64)> {
        let at = |calls: &[u32]| calls[((calls.len() - 1) as f64 * share) as usize];
        samples
            .iter()
            .map(|sample| (sample.seconds, f64::from(at(&sample.calls))))
            .collect()
    };
    let lines = [
        ("fullest", line(1.0)),
        ("one of ten", line(0.9)),
        ("middle", line(0.5)),
    ];
    let most = lines[0].1.iter().map(|point| point.1).fold(1.0, f64::max);
    draw(title, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc("calls at a server")
            .light_line_style(WHITE)
            .draw()?;
        let lines = lines.iter().map(|(name, line)| (*name, line.as_slice()));
        plot(&mut chart, lines, SeriesLabelPosition::UpperRight)?;
        Ok(())
    })
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
    paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<String, Error> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
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
