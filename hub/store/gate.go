package store

import "sync"

// gate keeps the database open while somebody reads it. A member that stops by
// itself, because it must not go on, closes its files while its servers still take
// calls.
type gate struct {
	mu     sync.Mutex
	shut   bool
	inside sync.WaitGroup
}

// enter lets a reader in (ErrStopped when the gate is shut); it must leave.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return ErrStopped
	}
	g.inside.Add(1)
	return nil
}

func (g *gate) leave() { g.inside.Done() }

// close lets nobody in any more and waits until the last one has left. A reader that
// waits for something of the store is answered when the store stops.
func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	g.inside.Wait()
}

// Enter keeps the member's files open until Leave; it fails (ErrStopped) when the
// store has stopped. Who reads KV or Maintenance enters first, for no longer than a
// request takes.
func (s *Store) Enter() error { return s.machine.readers.enter() }

// Leave undoes Enter.
func (s *Store) Leave() { s.machine.readers.leave() }
