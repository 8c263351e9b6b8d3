// Package postgresql is the driver of PostgreSQL's physical replication. What
// needs the data folder or the process is done by the guard; what needs SQL is
// done here, over TLS, as a user without privileges on anyone's data.
package postgresql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Name of the driver in Dataset.spec.driver.
const Name = "postgresql"

// Parameters of a dataset's member.
const (
	// ParameterSecret names the credentials Secret in the dataset's namespace.
	ParameterSecret = "credentialsSecret"
	// DefaultSecret is NAME-credentials.
	defaultSecretSuffix = "-credentials"
)

// options are the parameters handed to the guard as settings.
var options = []string{"max_connections", "shared_buffers", "wal_keep_size", "max_wal_size"}

// Host is the guard beside one database.
type Host interface {
	// Status is the guard's latest; ok is false while none is connected.
	// address is where the database is reached from here.
	Status() (status *agentv1.GuardStatus, address string, ok bool)
	// Do has the guard carry a command out and waits for its result.
	Do(ctx context.Context, command *agentv1.GuardCommand) (*agentv1.GuardResult, error)
}

// Hosts finds the guard of a dataset.
type Hosts interface {
	Host(namespace, name string) Host
}

// Secrets reads a Secret of this cluster. It may answer from memory: a database
// must be promotable while the API server does not answer.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (map[string][]byte, error)
}

// Driver implements driver.Driver.
type Driver struct {
	*dialer
	*findings
	hosts Hosts
}

var _ driver.Driver = (*Driver)(nil)

// New returns a driver that connects to nothing yet.
func New(hosts Hosts, secrets Secrets) *Driver {
	return &Driver{hosts: hosts, findings: newFindings(),
		dialer: &dialer{secrets: secrets, sessions: sessions{open: map[string]*session{}}}}
}

// Close ends the driver's connections.
func (d *Driver) Close() { d.sessions.closeAll() }

// Identity says what the driver can do.
func (d *Driver) Identity() driver.Identity {
	return driver.Identity{Name: Name, Version: "15", ZeroLoss: true}
}

// guarded is one dataset's guard and the status the call began with.
type guarded struct {
	host    Host
	status  *agentv1.GuardStatus
	address string
	call    driver.Call
}

// begin finds the guard and refuses an older call before anything happens. The
// guard refuses it again, from the volume's own memory.
func (d *Driver) begin(c driver.Call) (guarded, error) {
	host := d.hosts.Host(c.Dataset.Namespace, c.Dataset.Name)
	status, address, ok := host.Status()
	if !ok {
		return guarded{}, fmt.Errorf("dataset %s: its guard is not connected; see that the pod runs tripod-guard and reaches the agent", c.Dataset.Key())
	}
	if c.Incarnation < status.GetIncarnation() || c.Epoch < status.GetEpoch() {
		return guarded{}, fmt.Errorf("dataset %s: incarnation %d epoch %d, seen %d and %d: %w", c.Dataset.Key(),
			c.Incarnation, c.Epoch, status.GetIncarnation(), status.GetEpoch(), driver.ErrOlder)
	}
	return guarded{host, status, address, c}, nil
}

// do sends one command at the call's incarnation and epoch.
func (g *guarded) do(ctx context.Context, cmd *agentv1.GuardCommand) (*agentv1.GuardResult, error) {
	cmd.Incarnation, cmd.Epoch, cmd.Revision = g.call.Incarnation, g.call.Epoch, g.call.Revision
	if deadline, ok := ctx.Deadline(); ok {
		cmd.DeadlineMillis = max(1, time.Until(deadline).Milliseconds())
	}
	r, err := g.host.Do(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", g.call.Dataset.Key(), err)
	}
	if s := r.GetStatus(); s != nil {
		g.status = s
	}
	switch r.GetOutcome() {
	case agentv1.Outcome_OUTCOME_DONE:
		return r, nil
	case agentv1.Outcome_OUTCOME_REFUSED:
		return r, fmt.Errorf("dataset %s: guard: %s: %w", g.call.Dataset.Key(), r.GetMessage(), driver.ErrRefused)
	}
	return r, fmt.Errorf("dataset %s: guard: %s", g.call.Dataset.Key(), r.GetMessage())
}

func (g *guarded) settings() *agentv1.DatabaseSettings {
	return &agentv1.DatabaseSettings{Cluster: g.call.Dataset.Cluster, Options: Options(g.call.Dataset.Parameters)}
}

// Options are the settings of the database among a dataset's parameters.
func Options(parameters map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range options {
		if v := parameters[name]; v != "" {
			out[name] = v
		}
	}
	return out
}

// waits is the call's sync set without this copy.
func (g *guarded) waits() []string {
	var waits []string
	for _, cluster := range g.call.SyncSet {
		if cluster != g.call.Dataset.Cluster {
			waits = append(waits, cluster)
		}
	}
	return waits
}

// Promote makes this copy the primary at the call's epoch.
func (d *Driver) Promote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Observation{}, err
	}
	if err := g.becomePrimary(ctx); err != nil {
		return driver.Observation{}, err
	}
	// The write is local: the sync set may have nobody yet to confirm it.
	if err := d.withSession(ctx, c.Dataset, g.address, func(s *session) error { return s.prove(ctx, c) }); err != nil {
		return driver.Observation{}, fmt.Errorf("dataset %s: prove the promotion by a write: %w", c.Dataset.Key(), err)
	}
	d.setDiverged(c.Dataset.Key(), nil)
	d.setAccount(c.Dataset.Key(), "")
	return d.Observe(ctx, c.Dataset), nil
}

func (g *guarded) becomePrimary(ctx context.Context) error {
	s := g.settings()
	s.WaitFor = g.waits()
	start := func(form bool) error {
		_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_StartPrimary{
			StartPrimary: &agentv1.StartPrimary{Form: form, Settings: s}}})
		return err
	}
	switch {
	case g.status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_PRIMARY:
		return start(false)
	case g.status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED && !g.status.GetFormed():
		return start(true)
	case g.status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED && !g.status.GetStandby():
		return start(false)
	case g.status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED:
		replica := g.settings()
		if _, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_StartReplica{
			StartReplica: &agentv1.StartReplica{Settings: replica}}}); err != nil {
			return err
		}
	}
	_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Promote{Promote: &agentv1.PromoteReplica{Settings: s}}})
	return err
}

// Demote stops this primary in order.
func (d *Driver) Demote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Observation{}, err
	}
	if g.status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_PRIMARY {
		d.checkpoint(ctx, c.Dataset, g.address)
	}
	if _, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Close{Close: &agentv1.CloseDatabase{}}}); err != nil {
		return driver.Observation{}, err
	}
	d.sessions.drop(c.Dataset.Key())
	o := fromStatus(g.status)
	if o.State != driver.StateClosed || o.Position.Bytes <= 0 {
		return o, fmt.Errorf("dataset %s: its guard closed it, and reports it as %s with its log's end at %q", c.Dataset.Key(), o.State, o.Position.Text)
	}
	return o, nil
}

// checkpoint writes most of what the checkpoint of the stop would have to write
// while clients wait. Without it the stop takes longer, and is right all the same.
func (d *Driver) checkpoint(ctx context.Context, set driver.Dataset, address string) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/3)
		defer cancel()
	}
	_ = d.withSession(ctx, set, address, func(s *session) error {
		_, err := s.conn.Exec(ctx, "CHECKPOINT")
		return err
	})
}

// Fence kills the database and then asks from outside whether it is gone.
func (d *Driver) Fence(ctx context.Context, c driver.Call) (driver.Observation, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Observation{}, err
	}
	if _, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Fence{Fence: &agentv1.FenceDatabase{}}}); err != nil {
		return driver.Observation{}, err
	}
	probed, err := d.Probe(ctx, c)
	if err != nil {
		return driver.Observation{}, err
	}
	if probed.Listening {
		return driver.Observation{}, fmt.Errorf("dataset %s: the guard says fenced, and %s still answers: %s", c.Dataset.Key(), g.address, probed.Message)
	}
	return d.Observe(ctx, c.Dataset), nil
}

// Probe tries a write on a connection of its own.
func (d *Driver) Probe(ctx context.Context, c driver.Call) (driver.Probed, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Probed{}, err
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", g.address)
	if err != nil {
		return driver.Probed{Message: err.Error()}, nil
	}
	conn.Close()
	d.sessions.drop(c.Dataset.Key())
	err = d.withSession(ctx, c.Dataset, g.address, func(s *session) error { return s.prove(ctx, c) })
	if err != nil {
		return driver.Probed{Listening: true, Message: err.Error()}, nil
	}
	return driver.Probed{Listening: true, Writable: true}, nil
}

func secretName(d driver.Dataset) string {
	if name := d.Parameters[ParameterSecret]; name != "" {
		return name
	}
	return d.Name + defaultSecretSuffix
}

func (d *dialer) password(ctx context.Context, set driver.Dataset, key string) (string, error) {
	secret, err := d.secrets.Secret(ctx, set.Namespace, secretName(set))
	if err != nil {
		return "", fmt.Errorf("dataset %s: credentials: %w", set.Key(), err)
	}
	if len(secret[key]) == 0 {
		return "", fmt.Errorf("dataset %s: Secret %s/%s has no key %q", set.Key(), set.Namespace, secretName(set), key)
	}
	return string(secret[key]), nil
}

// isRefusal tells a final answer from one that may be tried again.
func isRefusal(err error) bool {
	return errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrOlder)
}
