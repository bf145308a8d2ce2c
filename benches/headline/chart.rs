//! The chart: goodput against demand, for more and more servers.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::series::{Series, Way};
use super::verdict::{LEAST_GOODPUT, Step};

const SIZE: (u32, u32) = (860, 440);
/// The upper end of the axis, in percent.
const HIGHEST: f64 = 110.0;
/// Numbers of servers below the axis.
const TICKS: [u32; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const FONT: &str = "sans-serif";

/// Colours on a light background, and on a dark one.
const PAPER: [&str; 2] = ["#FFFFFF", "#0D1117"];
const INK: [&str; 2] = ["#1F2328", "#E6EDF3"];
const GRID: [&str; 2] = ["#D1D9E0", "#30363D"];

/// Colours of a way, and the width of its line. Lines that lie upon each other stay visible, since the
/// later ones are thinner.
fn look(way: Way) -> ([&'static str; 2], u32) {
    match way {
        Way::Nobody => (["#CF222E", "#FF7B72"], 3),
        Way::HostRole => (["#0969DA", "#58A6FF"], 13),
        Way::NatRole => (["#F2B53C", "#B36A00"], 7),
        Way::Script => (["#5B2C87", "#F0E6FF"], 2),
    }
}

/// The colour of a light background.
fn colour([light, _]: [&str; 2]) -> RGBColor {
    let part = |from: usize| {
        let digits = light.get(from..from + 2).unwrap_or("00");
        u8::from_str_radix(digits, 16).unwrap_or(0)
    };
    RGBColor(part(1), part(3), part(5))
}

/// Rules that replace each colour on a dark background.
fn dark_style() -> String {
    let mut pairs = vec![PAPER, INK, GRID];
    pairs.extend(Way::ALL.map(|way| look(way).0));
    let rule = |[light, dark]: [&str; 2]| {
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let rules: String = pairs.into_iter().map(rule).collect();
    format!("<style>@media (prefers-color-scheme: dark){{{rules}}}</style>")
}

/// The legend's line of a way.
fn label(series: &Series) -> String {
    format!("{}: {} servers", series.way.name(), series.capacity)
}

/// The chart as SVG, with colours for light and dark backgrounds.
///
/// # Errors
/// A message if the library cannot draw.
pub fn svg(series: &[Series]) -> Result<String, String> {
    let mut text = String::new();
    draw(series, &mut text).map_err(|error| format!("cannot draw the chart: {error}"))?;
    let (head, body) = text
        .split_once(">\n")
        .ok_or("the chart has no first element")?;
    Ok(format!("{head}>\n{}\n{body}", dark_style()))
}

/// The drawing area of the chart, and the chart inside with its coordinates.
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<
    'b,
    SVGBackend<'a>,
    Cartesian2d<
        plotters::coord::combinators::LogCoord<f64>,
        plotters::coord::types::RangedCoordf64,
    >,
>;
type Res<T> = Result<T, Box<dyn std::error::Error>>;

/// Text in the colour of ink. The library divides sizes by 1.24.
fn style(size: u32) -> TextStyle<'static> {
    (FONT, f64::from(size) * 1.24)
        .into_font()
        .color(&colour(INK))
}

fn draw(series: &[Series], into: &mut String) -> Res<()> {
    let all = series.iter().flat_map(|one| &one.steps);
    let most = all.map(|step| step.servers).max().unwrap_or(1).max(2) as f64 * 1.1;
    let area = SVGBackend::with_string(into, SIZE).into_drawing_area();
    area.fill(&colour(PAPER))?;
    let title = "Servers on one NAT: goodput of reads or writes, whichever is lower";
    let mut chart = ChartBuilder::on(&area)
        .caption(title, style(18))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d((0.9..most).log_scale(), 0.0..HIGHEST)?;
    axes(&area, &mut chart, most)?;
    for one in series {
        line(&mut chart, one)?;
    }
    for way in [Way::Nobody, Way::HostRole] {
        let Some(one) = series.iter().find(|one| one.way == way && one.capacity > 0) else {
            continue;
        };
        let (x, y) = chart.backend_coord(&(one.capacity as f64, LEAST_GOODPUT * 100.0));
        let left = style(17).pos(Pos::new(HPos::Right, VPos::Top));
        area.draw_text(&format!("{} servers", one.capacity), &left, (x - 4, y + 10))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(380, 92))
        .legend_area_size(34)
        .margin(14)
        .background_style(colour(PAPER))
        .border_style(colour(GRID))
        .label_font(style(15))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Axes, grid, and the least goodput of a NAT that is not saturated.
fn axes(area: &Area<'_>, chart: &mut Chart<'_, '_>, most: f64) -> Res<()> {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .max_light_lines(0)
        .bold_line_style(colour(GRID))
        .axis_style(colour(INK))
        .label_style(style(14))
        .axis_desc_style(style(15))
        .y_labels(6)
        .y_label_formatter(&|share| format!("{share:.0} %"))
        .y_desc("of the demand")
        .draw()?;
    let centred = |size, v| style(size).pos(Pos::new(HPos::Center, v));
    for tick in TICKS
        .map(f64::from)
        .into_iter()
        .filter(|tick| *tick <= most)
    {
        chart.draw_series(LineSeries::new(
            [(tick, 0.0), (tick, HIGHEST)],
            colour(GRID),
        ))?;
        let (x, y) = chart.backend_coord(&(tick, 0.0));
        area.draw_text(&tick.to_string(), &centred(14, VPos::Top), (x, y + 8))?;
    }
    let middle_of_bottom = (SIZE.0 as i32 / 2, SIZE.1 as i32 - 12);
    let below = centred(15, VPos::Bottom);
    area.draw_text("servers (logarithmic)", &below, middle_of_bottom)?;
    let least = [0.9, most].map(|servers| (servers, LEAST_GOODPUT * 100.0));
    chart.draw_series(DashedLineSeries::new(least, 6, 4, colour(INK).into()))?;
    Ok(())
}

/// The line of a way, with a dot for each number of servers if the line is thin.
fn line(chart: &mut Chart<'_, '_>, one: &Series) -> Res<()> {
    let (pair, width) = look(one.way);
    let stroke = colour(pair).stroke_width(width);
    let share = |step: &Step| (step.goodput() * 100.0).min(HIGHEST);
    let points = one
        .steps
        .iter()
        .map(|step| (step.servers as f64, share(step)));
    chart
        .draw_series(LineSeries::new(points.clone(), stroke))?
        .label(label(one))
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 26, y)], stroke));
    let dots = points.filter(|_| width < 4);
    chart.draw_series(dots.map(|point| Circle::new(point, 4, colour(pair).filled())))?;
    Ok(())
}
