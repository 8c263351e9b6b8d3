package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config of a guard. Zero values get the LAN profile's defaults.
type Config struct {
	// Identity comes from the guard's certificate.
	Identity Identity
	// Credentials are read again at every dial, so a renewed file is used.
	Credentials Credentials
	// Agents are HOST:PORT; a host is resolved to all its addresses, again and
	// again.
	Agents []string
	// Hubs are asked only while no agent answers, beside those of the credentials.
	Hubs []string
	// Pod is the guard's name towards an agent.
	Pod string
	// Address is HOST:PORT where the pods of this cluster reach the database.
	Address string
	Version string

	Tick   time.Duration
	Margin time.Duration
	Clock  Clock
	Log    *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Tick == 0 {
		c.Tick = time.Second
	}
	if c.Margin == 0 {
		c.Margin = 500 * time.Millisecond
	}
	if c.Clock == nil {
		c.Clock = BootClock
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate names the first thing that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Identity.Cluster == "" || c.Identity.Namespace == "" || c.Identity.Dataset == "":
		return errors.New("guard: identity is incomplete, expected the certificate of one dataset in one cluster")
	case len(c.Agents) == 0:
		return errors.New("guard: no agent to ask, give at least one HOST:PORT")
	case c.Address == "":
		return errors.New("guard: address is empty, give the HOST:PORT where pods reach the database")
	case c.Margin < 0 || c.Tick < 0:
		return fmt.Errorf("guard: tick %v and margin %v must be positive", c.Tick, c.Margin)
	}
	return nil
}
