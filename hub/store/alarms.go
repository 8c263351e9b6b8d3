package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3alarm"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// loadAlarms reads the committed alarms of a database.
func (s *machine) loadAlarms(be backend.Backend) error {
	alarms, err := v3alarm.NewAlarmStore(s.zap, schema.NewAlarmBackend(s.zap, be))
	if err != nil {
		return fmt.Errorf("read the alarms: %w", err)
	}
	s.alarms.Store(alarms)
	s.full.Store(len(s.alarms.Load().Get(pb.AlarmType_NOSPACE)) > 0)
	return nil
}

// alarm applies a command. While NOSPACE of any member stands, what grows is
// refused on every member alike when it is applied; see execute.
func (s *machine) alarm(r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	response := &pb.AlarmResponse{Header: s.header()}
	switch r.Action {
	case pb.AlarmRequest_ACTIVATE:
		response.Alarms = append(response.Alarms, s.alarms.Load().Activate(types.ID(r.MemberID), r.Alarm))
	case pb.AlarmRequest_DEACTIVATE:
		if taken := s.alarms.Load().Deactivate(types.ID(r.MemberID), r.Alarm); taken != nil {
			response.Alarms = append(response.Alarms, taken)
		}
	}
	s.full.Store(len(s.alarms.Load().Get(pb.AlarmType_NOSPACE)) > 0)
	return response, nil
}

// keepQuota has the leader raise the alarm when its database is over the quota,
// and take it back when less than 90 % of it is in use.
func (s *Store) keepQuota(ctx context.Context) {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	said := &said{last: map[string]time.Time{}, now: time.Now}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.IsLeader() {
			continue
		}
		if err := s.alignAlarm(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotLeader) && !said.lately(err.Error()) {
			s.log.Warn("the alarm of the quota is not up to date yet", "error", err)
		}
	}
}

// inUse is the part of the database in use. bbolt counts what was freed when the
// next transactions are written, and while growth is refused there may be none.
func (s *Store) inUse() int64 {
	if s.space.over() || s.machine.full.Load() {
		s.machine.use(func(b backend.Backend) { b.ForceCommit() })
	}
	_, used := s.Maintenance().Size()
	return used
}

// alignAlarm raises or takes back the alarm. Growth is refused on a member that is
// over the quota also while the alarm cannot be raised, for instance because its
// level of the command set is not in force yet.
func (s *Store) alignAlarm(ctx context.Context) error {
	raised := s.machine.full.Load()
	switch {
	case s.space.over() && !raised:
		if _, err := s.Propose(ctx, alarmed(&pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: s.Membership().SelfID(), Alarm: pb.AlarmType_NOSPACE,
		})); err != nil {
			return fmt.Errorf("raise the alarm: %w", err)
		}
		s.log.Error("the database is over its quota, what grows is refused", "error", s.space.overText())
	case raised && s.space.relieved():
		s.log.Info("the database is well under its quota again, what grows is accepted", "bytes", s.space.used.Load())
		return s.disarm(ctx, s.machine.alarms.Load().Get(pb.AlarmType_NOSPACE))
	}
	return nil
}

func (s *Store) disarm(ctx context.Context, alarms []*pb.AlarmMember) error {
	for _, a := range alarms {
		if _, err := s.Propose(ctx, alarmed(&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm})); err != nil {
			return fmt.Errorf("take back an alarm: %w", err)
		}
	}
	return nil
}

// Committed are the alarms that all members know.
func (m *Maintenance) Committed() []*pb.AlarmMember {
	return m.store.machine.alarms.Load().Get(pb.AlarmType_NONE)
}

// Disarm takes back committed alarms, of one member and type or, where those are
// zero, of any, and returns them. The leader raises the alarm of the quota again
// while the database is over it.
func (m *Maintenance) Disarm(ctx context.Context, r *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	var taken []*pb.AlarmMember
	for _, a := range m.store.machine.alarms.Load().Get(r.Alarm) {
		if r.MemberID == 0 || r.MemberID == a.MemberID {
			taken = append(taken, a)
		}
	}
	return taken, m.store.disarm(ctx, taken)
}

// overText is what an operator is told about the quota.
func (s *space) overText() string {
	return fmt.Sprintf("no space left in the database: %d of %d MiB of its quota are in use, so what grows is refused; reads, deletions and leases go on. "+
		"Delete what is not needed and run `tripodctl hub compact`, or raise storeQuota on every member; the alarm goes by itself under %d MiB",
		s.used.Load()>>20, s.quota>>20, relief(s.quota)>>20)
}
