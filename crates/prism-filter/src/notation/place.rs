//! Places on Earth, and areas that hold them.

use std::{borrow::Cow, f64::consts::PI};

use crate::{
    document::{ObjectRef, Raw, ValueRef},
    operand::shown,
    path::abbreviate,
};

/// What an area may be, for error messages.
pub(crate) const EXPECTED: &str = "a circle `{\"lat\": …, \"lon\": …, \"radius_m\": …}` or a box `{\"south\": …, \
                                   \"west\": …, \"north\": …, \"east\": …}`, in degrees and metres";

/// The mean radius of Earth in metres. On this sphere distances are within 0.6 % of those on the ellipsoid.
const EARTH: f64 = 6_371_008.8;

/// A place: the object `{"lat": 37.77, "lon": -122.42}`, in degrees, with whatever else it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    lat: f64,
    lon: f64,
}

impl Point {
    /// `None` for what is no place: another type, a coordinate that is missing or is none on Earth.
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Object(object) => Self::read(object.raw()),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn read(value: Raw<'_>) -> Option<Self> {
        let degrees =
            |key: &[u8], most: f64| value.field(key)?.number().filter(|degrees| degrees.abs() <= most);
        Some(Self {
            lat: degrees(b"lat", 90.0)?,
            lon: degrees(b"lon", 180.0)?,
        })
    }

    /// How far north, in degrees from -90 to 90.
    pub fn latitude(&self) -> f64 {
        self.lat
    }

    /// At a pole every meridian meets: there is no longitude.
    fn is_pole(&self) -> bool {
        self.lat.abs() == 90.0
    }
}

/// Part of Earth's surface; its edge belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Area(Shape);

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Circle(Circle),
    Box(Bounds),
}

/// The points within a great-circle distance of another one.
#[derive(Debug, Clone, PartialEq)]
struct Circle {
    center: Point,
    cosine: f64,
    /// The square of the sine of half the angle that the radius spans: what the haversine of a point in the
    /// circle is at most.
    haversine: f64,
    south: f64,
    north: f64,
}

/// The points between two parallels and two meridians.
#[derive(Debug, Clone, PartialEq)]
struct Bounds {
    south: f64,
    west: f64,
    north: f64,
    /// Less than `west` where the box goes across the antimeridian.
    east: f64,
}

impl Area {
    /// Reads the operand of [`Operator::Within`](crate::Operator::Within).
    ///
    /// # Errors
    /// What is wrong with it, as what it is.
    pub fn of(value: ValueRef<'_>) -> Result<Self, Cow<'static, str>> {
        let ValueRef::Object(object) = value else {
            return Err(shown(value));
        };
        let is_box = ["south", "west", "north", "east"].map(|key| object.get(key).is_some());
        let shape = if is_box.contains(&true) {
            Shape::Box(Bounds::read(object)?)
        } else {
            Shape::Circle(Circle::read(object)?)
        };
        Ok(Self(shape))
    }

    /// Whether a place is in it.
    #[inline]
    pub fn contains(&self, point: Point) -> bool {
        match &self.0 {
            Shape::Circle(circle) => circle.contains(point),
            Shape::Box(bounds) => bounds.contains(point),
        }
    }

    /// The southernmost and the northernmost latitude that a point in it may have.
    pub fn latitudes(&self) -> (f64, f64) {
        match &self.0 {
            Shape::Circle(circle) => (circle.south, circle.north),
            Shape::Box(bounds) => (bounds.south, bounds.north),
        }
    }
}

impl Circle {
    fn read(object: ObjectRef<'_>) -> Result<Self, Cow<'static, str>> {
        only(object, &["lat", "lon", "radius_m"])?;
        let center = Point {
            lat: coordinate(object, "lat", 90.0)?,
            lon: coordinate(object, "lon", 180.0)?,
        };
        let radius = number(object, "radius_m")?;
        if radius < 0.0 {
            return Err(format!("one with a `radius_m` of {radius}").into());
        }
        let angle = radius / EARTH;
        let reach = angle.to_degrees();
        Ok(Self {
            center,
            cosine: cosine(center),
            // No two points are further apart than half a turn, however it is rounded.
            haversine: if angle >= PI {
                2.0
            } else {
                square((angle / 2.0).sin())
            },
            south: center.lat - reach,
            north: center.lat + reach,
        })
    }

    #[inline]
    fn contains(&self, point: Point) -> bool {
        // Most points are told by their latitude, and so are those that an index need not lead to.
        if point.lat < self.south || point.lat > self.north {
            return false;
        }
        let turn = (point.lon - self.center.lon).abs();
        // The short way round: exact, so that a meridian is the same on both sides of the antimeridian.
        let turn = if turn > 180.0 { 360.0 - turn } else { turn };
        let by_latitude = square(((point.lat - self.center.lat).to_radians() / 2.0).sin());
        let by_longitude = square((turn.to_radians() / 2.0).sin());
        by_latitude + cosine(point) * self.cosine * by_longitude <= self.haversine
    }
}

impl Bounds {
    fn read(object: ObjectRef<'_>) -> Result<Self, Cow<'static, str>> {
        only(object, &["south", "west", "north", "east"])?;
        let bounds = Self {
            south: coordinate(object, "south", 90.0)?,
            west: coordinate(object, "west", 180.0)?,
            north: coordinate(object, "north", 90.0)?,
            east: coordinate(object, "east", 180.0)?,
        };
        if bounds.south > bounds.north {
            return Err("one whose `south` lies north of its `north`".into());
        }
        Ok(bounds)
    }

    #[inline]
    fn contains(&self, point: Point) -> bool {
        let in_latitude = self.south <= point.lat && point.lat <= self.north;
        in_latitude && (point.is_pole() || self.spans(point.lon))
    }

    /// The antimeridian has two names.
    fn spans(&self, lon: f64) -> bool {
        let between = |lon: f64| match self.west <= self.east {
            true => self.west <= lon && lon <= self.east,
            false => self.west <= lon || lon <= self.east,
        };
        between(lon) || (lon.abs() == 180.0 && between(-lon))
    }
}

/// The cosine of a latitude, which is nothing at the poles and would be rounded to a bit more.
fn cosine(point: Point) -> f64 {
    if point.is_pole() {
        0.0
    } else {
        point.lat.to_radians().cos()
    }
}

fn square(number: f64) -> f64 {
    number * number
}

fn coordinate(object: ObjectRef<'_>, key: &str, most: f64) -> Result<f64, Cow<'static, str>> {
    let degrees = number(object, key)?;
    if degrees.abs() > most {
        return Err(format!("one with a `{key}` of {degrees}, beyond {most} degrees").into());
    }
    Ok(degrees)
}

fn number(object: ObjectRef<'_>, key: &str) -> Result<f64, Cow<'static, str>> {
    match object.get(key) {
        Some(ValueRef::Number(number)) => Ok(number),
        Some(other) => Err(format!("one whose `{key}` is of type {}", other.kind()).into()),
        None => Err(format!("an object without `{key}`").into()),
    }
}

/// A misspelt key must not be taken for one that is missing, nor be ignored.
fn only(object: ObjectRef<'_>, known: &[&str]) -> Result<(), Cow<'static, str>> {
    match object.iter().find(|(key, _)| !known.contains(key)) {
        Some((key, _)) => Err(format!("an object with `{}`", abbreviate(key)).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
