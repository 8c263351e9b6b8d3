package effector

import (
	"context"
	"fmt"
	"time"

	"tripod.dev/tripod/failover/driver/socket"
)

// socketEvery is how often, in ticks, a driver that runs beside the agent is asked
// whether it is there. Its calls find out for themselves; this is for the log.
const socketEvery = 5

// beside adds the drivers that are reached by a socket. A built-in one keeps its
// name: what it drives must not change hands by a line of configuration.
func (e *Effector) beside(sockets map[string]string) error {
	for name, path := range sockets {
		if e.drivers[name] != nil {
			return fmt.Errorf("effector: driver %s is built in: give the one at %s another name", name, path)
		}
		client, err := socket.New(name, path)
		if err != nil {
			return fmt.Errorf("effector: %w", err)
		}
		e.drivers[name] = client
	}
	return nil
}

// watchSockets says at start, and when it changes, which drivers answer, until ctx
// ends.
func (e *Effector) watchSockets(ctx context.Context) {
	if len(e.cfg.Sockets) == 0 {
		return
	}
	every := time.NewTicker(socketEvery * e.cfg.Tick)
	defer every.Stop()
	said := map[string]string{}
	for {
		for name := range e.cfg.Sockets {
			if client, ok := e.drivers[name].(*socket.Client); ok {
				said[name] = e.sayDriver(ctx, client, said[name])
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

func (e *Effector) sayDriver(ctx context.Context, client *socket.Client, before string) string {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Tick)
	defer cancel()
	err := client.Check(ctx)
	id := client.Identity()
	switch {
	case err != nil && before != err.Error():
		e.cfg.Log.Warn("driver does not answer", "driver", id.Name, "error", err)
		return err.Error()
	case err == nil && before != id.Version:
		e.cfg.Log.Info("driver answers", "driver", id.Name, "version", id.Version, "zeroLoss", id.ZeroLoss)
		return id.Version
	}
	return before
}
