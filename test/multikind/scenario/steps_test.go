package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
)

// placedObjects returns the UIDs of the ledger's workloads in every cluster,
// read straight from the clusters.
func (f *Fleet) placedObjects(ctx context.Context) (map[string]string, error) {
	objects := map[string]string{}
	for _, c := range f.Lab.Centers() {
		text, err := f.Kubectl(ctx, nil, "--context", "direct-"+c.Name, "-n", ledger.Namespace, "get",
			"deployments,statefulsets,services,secrets,configmaps", "-l", "tripod.dev/managed-by",
			"-o", `jsonpath={range .items[*]}{.metadata.uid} {.kind}/{.metadata.name}{"\n"}{end}`)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			uid, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			objects[uid] = c.Name + " " + name
		}
	}
	if len(objects) == 0 {
		return nil, errors.New("no placed object was found in any cluster")
	}
	return objects, nil
}

// nothingDeleted fails the test when one of the workloads that were placed is not
// there any more.
func nothingDeleted(t *testing.T, f *Fleet, placed map[string]string) {
	t.Helper()
	now, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for uid, object := range placed {
		if now[uid] == "" {
			t.Errorf("%s was deleted (or made anew)", object)
		}
	}
}

// isolateFromCenters cuts a center off from every other center, and leaves it
// reachable from outside.
func (f *Fleet) isolateFromCenters(ctx context.Context, center string) (fault.Effect, error) {
	var last fault.Effect
	for _, c := range f.Lab.Centers() {
		if c.Name == center {
			continue
		}
		var err error
		if last, err = f.Inject(ctx, fault.Fault{Kind: fault.Cut, Center: center, Peer: c.Name}); err != nil {
			return last, err
		}
	}
	return last, nil
}

// session is one client's connection that is kept open whatever happens.
type session struct{ conn *pgx.Conn }

// OpenSession opens a session straight to one center's copy.
func (b *Business) OpenSession(ctx context.Context, center string) (*session, error) {
	conn, err := b.dial(ctx, center)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn}
	return s, s.Write(ctx)
}

func (b *Business) dial(ctx context.Context, center string) (*pgx.Conn, error) {
	config := b.ledger.Config()
	address := b.fleet.address(center)
	if address == "" {
		return nil, fmt.Errorf("there is no center %q", center)
	}
	return traffic.Dial(ctx, net.JoinHostPort(address, ledger.Port), config.User, config.Password, config.Database, 2*time.Second)
}

// acknowledges says what is wrong when a write is not.
func (s *session) acknowledges(ctx context.Context) (string, error) {
	if err := s.Write(ctx); err != nil {
		return "a write was not acknowledged: " + err.Error(), nil
	}
	return "", nil
}

// Write commits something through the session, in a table of its own.
func (s *session) Write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := s.conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS open_sessions (at timestamptz NOT NULL DEFAULT now()); INSERT INTO open_sessions DEFAULT VALUES`)
	return err
}

// Close hangs up.
func (s *session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}
