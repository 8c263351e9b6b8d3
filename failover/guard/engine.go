package guard

import (
	"context"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Engine knows one kind of database. Its calls are made one at a time, except
// Writable, which may come at any moment.
type Engine interface {
	// Start runs the copy as mode and returns when it accepts connections.
	// exited is called once, when the database has ended by itself or by a kill.
	Start(ctx context.Context, mode agentv1.DatabaseMode, s *agentv1.DatabaseSettings, exited func(error)) error
	// Promote makes a running replica writable and returns when it is.
	Promote(ctx context.Context, s *agentv1.DatabaseSettings) error
	// Configure makes a running database wait for s.WaitFor and follow
	// s.PrimaryAddress.
	Configure(ctx context.Context, s *agentv1.DatabaseSettings) error
	// Stop ends a running database in order. It fails when the database has
	// ended otherwise, now or before: then where its log ends is not known.
	Stop(ctx context.Context) error
	// Writable reports from the copy itself whether it accepts, or when it is
	// stopped last accepted, writes.
	Writable() (bool, error)
}

// Copier changes a stopped copy.
type Copier interface {
	// Form makes the first copy; it is whole on return or absent.
	Form(ctx context.Context, s *agentv1.DatabaseSettings) error
	// Measure compares the copy with a source and changes nothing.
	Measure(ctx context.Context, source *agentv1.SourceFacts) (*agentv1.Divergence, error)
	// Rewind keeps the log after the fork aside in a folder named for epoch,
	// then takes it back. An error with torn set leaves a copy that must not
	// be started.
	Rewind(ctx context.Context, source *agentv1.SourceFacts, epoch int64) (torn bool, err error)
	// Copy replaces the copy by a base copy of the source; the old one is
	// there until the new one is whole, and for ever with keepAside.
	Copy(ctx context.Context, source *agentv1.SourceFacts, epoch int64, keepAside bool) error
	// Position is where the stopped copy's log was last known to end.
	Position(ctx context.Context) (position string, timeline int64, err error)
}

// Processes is the container's processes.
type Processes interface {
	// KillAll kills everything but the guard and returns what is still alive.
	KillAll() (left []int)
}

// Store keeps the guard's memory; it is durable when Save returns.
type Store interface {
	Load(any) error
	Save(any) error
}

// Probe says whether anything listens on the database's port.
type Probe func(ctx context.Context) (listening bool)
