//! Charts with both axes logarithmic.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

pub(crate) const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
pub(crate) const GREEN: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);
pub(crate) const RED: RGBColor = RGBColor(0xd6, 0x27, 0x28);
pub(crate) const PURPLE: RGBColor = RGBColor(0x94, 0x67, 0xbd);
pub(crate) const ORANGE: RGBColor = RGBColor(0xff, 0x7f, 0x0e);

/// What was measured in one way.
pub(crate) struct Line {
    name: &'static str,
    color: RGBColor,
    /// Microseconds by size: the median, and the slow end.
    points: Vec<(usize, f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &'static str, color: RGBColor) -> Self {
        Self {
            name,
            color,
            points: Vec::new(),
        }
    }

    /// Adds a point and prints it.
    pub(crate) fn point(&mut self, size: usize, median: f64, slow: f64) {
        crate::told(size, self.name, median, slow);
        self.points.push((size, median, slow));
    }
}

/// What is around the lines.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// Across and up.
    pub(crate) from: (f64, f64),
    pub(crate) to: (f64, f64),
    /// What the rings are.
    pub(crate) ring: &'static str,
}

impl Chart {
    /// Medians as lines, the slow end as rings.
    pub(crate) fn draw(&self, lines: &[Line], path: &Path) -> Result<()> {
        let drawn = self.try_draw(lines, path);
        drawn.map_err(|error| anyhow!("cannot draw `{}`: {error}", path.display()))
    }

    fn try_draw(&self, lines: &[Line], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (760, 440)).into_drawing_area();
        root.fill(&WHITE)?;
        let across = (self.from.0..self.to.0).log_scale();
        let up = (self.from.1..self.to.1).log_scale();
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_desc(self.across)
            .y_desc(self.up)
            .x_label_formatter(&|size| format!("{size:.0}"))
            .y_label_formatter(&|micros| format!("{micros:.0}"))
            .draw()?;
        for line in lines {
            let (color, label) = (
                line.color,
                format!("{}: median, and {} as rings", line.name, self.ring),
            );
            let points = line.points.iter();
            let medians = points.clone().map(|&(size, median, _)| (size as f64, median));
            chart
                .draw_series(LineSeries::new(medians, color.stroke_width(2)).point_size(3))?
                .label(label)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            chart.draw_series(points.map(|&(size, _, slow)| Circle::new((size as f64, slow), 5, color)))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE.mix(0.9))
            .draw()?;
        root.present()?;
        Ok(())
    }
}
