// Package logs reads and follows containers' logs in the CRI's format, across rotations, and rotates them.
//
// It imports nothing of the project. A container's log is <file>, to which its runtime appends. Parts that were moved away are
// <file>.<time>, packed ones <file>.<time>.gz; the order of their names is their order. The newest of them is not packed, so that who
// reads it need not hurry. As long as <file> is missing, the newest part is the one that is written to: an agent was killed between
// moving the log away and telling the runtime.
//
// An entry is "<RFC 3339 time> <stdout|stderr> <tags> <text>\n"; the tag P says that the line goes on in the stream's next entry, or ended
// without a newline. What is not an entry is passed over, and so is one that is not whole.
package logs
