package session

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// book is which members there are and the links to them: to every address that
// the agent was installed with, for good, and to every member that the hub tells
// of and no link leads to yet. A member that the hub no longer names loses only
// a link of the second kind.
//
// One member may have two addresses here, a name and an IP for instance. Two
// sessions of one replica with one member would end each other in turn; so a
// link that was once welcomed by a member waits while another link holds it.
type book struct {
	sessions *Sessions
	changed  chan struct{}

	mu    sync.Mutex
	told  []*agentv1.HubMember
	links []*link
	// addresses was last given to Config.Addresses.
	addresses []string
}

func newBook(s *Sessions) *book {
	b := &book{sessions: s, changed: make(chan struct{}, 1), told: s.config.Told}
	for _, address := range s.config.Members {
		b.links = append(b.links, newLink(s, address, ""))
	}
	return b
}

// all are the links now.
func (b *book) all() []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.links)
}

// learn takes what a member says of the members. Any member's word is good: it
// has applied it, and an older list only costs a link that fails.
func (b *book) learn(members *agentv1.HubMembers) {
	if len(members.GetMembers()) == 0 {
		return
	}
	b.mu.Lock()
	b.told = members.GetMembers()
	b.mu.Unlock()
	b.touch()
}

func (b *book) touch() { signal(b.changed) }

// run keeps the links until ctx ends.
func (b *book) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	start := func(l *link) {
		own, stop := context.WithCancel(ctx)
		l.stop = stop
		group.Go(func() error {
			defer stop()
			if err := l.run(own); ctx.Err() != nil {
				return err
			}
			return nil // the link was given up
		})
	}
	for _, l := range b.all() {
		start(l)
	}
	group.Go(func() error {
		for {
			for _, l := range b.follow() {
				start(l)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-b.changed:
			}
		}
	})
	return group.Wait()
}

// follow gives up links to members that are gone, returns new ones to start, and
// tells the addresses in use.
func (b *book) follow() []*link {
	b.mu.Lock()
	var fresh []*link
	for _, m := range b.told {
		if m.GetName() == "" || m.GetAddress() == "" || slices.ContainsFunc(b.links, func(l *link) bool {
			return l.address == m.GetAddress() || l.leadsTo() == m.GetName() && (l.installed || l.address == m.GetAddress())
		}) {
			continue
		}
		fresh = append(fresh, newLink(b.sessions, m.GetAddress(), m.GetName()))
	}
	b.links = slices.DeleteFunc(append(b.links, fresh...), func(l *link) bool {
		gone := !l.installed && len(b.told) > 0 && !slices.ContainsFunc(b.told, func(m *agentv1.HubMember) bool {
			return m.GetName() == l.leadsTo() && m.GetAddress() == l.address
		})
		if gone && l.stop != nil {
			l.stop()
		}
		return gone
	})
	var addresses []string
	for _, l := range b.links {
		if !b.heldElsewhereLocked(l) {
			addresses = append(addresses, l.address)
		}
	}
	tell := !slices.Equal(addresses, b.addresses)
	b.addresses = addresses
	told := b.told
	b.mu.Unlock()
	if tell {
		b.sessions.config.Addresses(addresses)
	}
	b.sessions.config.RememberMembers(told)
	return fresh
}

// heldElsewhere says whether another link has a session with the member that l
// leads to.
func (b *book) heldElsewhere(l *link) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heldElsewhereLocked(l)
}

func (b *book) heldElsewhereLocked(l *link) bool {
	name := l.leadsTo()
	return name != "" && slices.ContainsFunc(b.links, func(other *link) bool {
		return other != l && other.open.Load() && other.leadsTo() == name
	})
}
