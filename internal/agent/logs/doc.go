// Package logs reads and follows containers' logs in the CRI's format, across rotations, and rotates them.
//
// It imports nothing of the project. The log of an instance is <file>; rotated parts are <file>.<time>, older ones first in the order
// of their names. A line is "<RFC 3339 time> <stdout|stderr> <tags> <text>"; the tag P says that the line goes on in the next.
package logs
