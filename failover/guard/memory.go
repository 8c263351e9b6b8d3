package guard

import agentv1 "tripod.dev/tripod/proto/agent/v1"

// Memory is what a guard keeps on the volume, beside the data it is about. It
// is durable before an effect that depends on it.
type Memory struct {
	// Incarnation and Epoch are the highest seen; older ones are refused.
	Incarnation uint64 `json:"incarnation"`
	Epoch       int64  `json:"epoch"`
	// Revision is the highest of a command carried out at Incarnation and Epoch.
	Revision int64 `json:"revision,omitempty"`
	// Closed is the revision of the CloseDatabase carried out at Epoch, or 0.
	Closed int64 `json:"closed,omitempty"`
	// Held is the last epoch at which this copy was the primary.
	Held int64 `json:"held,omitempty"`
	// Formed is true when the volume holds a whole copy.
	Formed bool `json:"formed,omitempty"`
	// Torn is true from before a rewind until after it.
	Torn   bool `json:"torn,omitempty"`
	Fenced bool `json:"fenced,omitempty"`
	// Standby is true when the copy was last run as a replica.
	Standby bool   `json:"standby,omitempty"`
	Follows string `json:"follows,omitempty"`
	// WaitsFor are the standbys that have surely held every write that was
	// acknowledged at Held. It begins with those that the promotion was told to
	// wait for, grows after they have caught up and shrinks before the database
	// stops waiting.
	WaitsFor []string `json:"waitsFor,omitempty"`
	// Known is the sync set of the primary this copy followed, as last heard.
	Known Known `json:"known,omitzero"`
	// Origins say who began each timeline of the source that this copy was last
	// made to follow, attached to, rewound to or copied from.
	Origins map[int64]string `json:"origins,omitempty"`
}

// Known is a committed sync set as a replica heard it.
type Known struct {
	Epoch      int64              `json:"epoch,omitempty"`
	Primary    string             `json:"primary,omitempty"`
	SyncSet    []string           `json:"syncSet,omitempty"`
	Protection agentv1.Protection `json:"protection,omitempty"`
}

// holds remembers that this copy is about to be the primary of epoch. The
// standbys of an earlier epoch are forgotten: none is sure until it has caught
// up.
func (m *Memory) holds(epoch int64) {
	if m.Held != epoch {
		m.WaitsFor = nil
	}
	m.Held = epoch
}

// becamePrimary remembers that this copy is the primary of epoch.
func (m *Memory) becamePrimary(epoch int64) {
	m.holds(epoch)
	m.Formed, m.Standby, m.Fenced, m.Closed = true, false, false, 0
	m.Follows = ""
	m.Known = Known{}
}

// becameReplica remembers that this copy follows address.
func (m *Memory) becameReplica(address string, origins map[int64]string, role *agentv1.RoleGrant) {
	m.Standby, m.Fenced, m.Closed = true, false, 0
	m.Follows = address
	if len(origins) > 0 {
		m.Origins = origins
	}
	if role.GetRole() == agentv1.Role_ROLE_REPLICA && role.GetPrimaryAddress() == address && len(role.GetSyncSet()) > 0 {
		m.Known = Known{Epoch: role.GetEpoch(), Primary: role.GetPrimary(), SyncSet: role.GetSyncSet(), Protection: role.GetProtection()}
	}
}

// copied remembers that the volume holds a whole base copy, a replica's.
func (m *Memory) copied(source *agentv1.SourceFacts) {
	m.Origins = source.GetOrigins()
	m.Formed, m.Torn, m.Standby = true, false, true
	m.Held, m.WaitsFor, m.Closed = 0, nil, 0
	m.Known = Known{}
}

// rewound remembers that the copy is a replica's again. What it waited for as
// primary went with the log after the fork.
func (m *Memory) rewound(source *agentv1.SourceFacts) {
	m.Origins = source.GetOrigins()
	m.Torn, m.Standby = false, true
	m.Held, m.WaitsFor, m.Closed = 0, nil, 0
	m.Known = Known{}
}
