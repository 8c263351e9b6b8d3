package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/machine"
)

const (
	survivor  = "hub-" + remoteCenter
	hubFolder = "/var/lib/tripod-hub"
	hubConfig = hubFolder + "/config.yaml"
)

// city is the centers that are lost together with the hub's majority.
var city = []string{"north-1", "north-2"}

// S9: the city is gone with the hub's majority. The minority refuses writes and
// moves nothing; recovery needs two operators; the members that come back are
// read-only, lead nobody, and rejoin as new; nothing that was acknowledged is lost.
func TestS9TheCityIsGoneWithTheMajority(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	operators := f.registerOperators(t)
	incarnation := f.hubStatus(t).Incarnation
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, center := range city {
		f.inject(t, fault.Fault{Kind: fault.PowerOff, Center: center})
	}
	f.refusesWrites(t)
	f.inject(t, fault.Fault{Kind: fault.Kill, Process: "hub", Center: remoteCenter})
	f.begin(t, operators, "recover --lost hub-north-1,hub-north-2", incarnation+1)
	if err := f.Throughout(t.Context(), 10*time.Second, "nothing is moved", unmoved(f, before, city...)); err != nil {
		t.Error(err)
	}
	for _, center := range city {
		f.inject(t, fault.Fault{Kind: fault.PowerOn, Center: center})
	}
	f.leftBehind(t)
	if err := b.AwaitTransfers(t.Context(), 100, 2*time.Minute); err != nil {
		t.Errorf("transfers under the recovered hub: %v", err)
	}
	f.rejoin(t)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after the city returned: %s %v", wrong, err)
	}
	nothingDeleted(t, f, placed)
	audit(t, b)
}

// signer lets bob register a key. "members" is a resource of access alone.
const signer = `
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: s9},
 rules: [{apiGroups: [tripod.dev], resources: [members], verbs: [sign]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: s9},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: s9},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}]}
`

// operator signs recoveries.
type operator struct{ name, key string }

// registerOperators makes and registers the keys of two people.
func (f *Fleet) registerOperators(t *testing.T) []operator {
	t.Helper()
	t.Cleanup(func() { drop(t, f, "hub", "clusterrolebinding/s9", "clusterrole/s9") })
	must(t)(f.Kubectl(t.Context(), strings.NewReader(signer), "--context", "hub", "apply", "-f", "-"))
	bob := filepath.Join(t.TempDir(), "bob.kubeconfig")
	must(t)(f.Tripodctl(t.Context(), "user-certificate", "bob", "--out", bob, "--approve"))
	people := []struct {
		operator
		flags []string
	}{
		{operator{name: "tripod:admin"}, nil},
		{operator{name: "bob"}, []string{"--kubeconfig", bob}},
	}
	var all []operator
	for i, p := range people {
		p.key = filepath.Join(t.TempDir(), fmt.Sprintf("%d.key", i))
		must(t)(f.Tripodctl(t.Context(), "hub", "operator-key", "new", p.key))
		said := must(t)(f.Tripodctl(t.Context(), append([]string{"hub", "operator-key", "register", p.key}, p.flags...)...))
		says(t, said, "registered as "+p.name)
		all = append(all, p.operator)
	}
	return all
}

// sign returns the path of the operator's signature of a statement, inside the
// center of the survivor.
func (f *Fleet) sign(t *testing.T, o operator, statement string) string {
	t.Helper()
	local := filepath.Join(t.TempDir(), "statement.json")
	if err := os.WriteFile(local, []byte(f.inside(t.Context(), t, remoteCenter, "cat "+statement)), 0o600); err != nil {
		t.Fatal(err)
	}
	signature := must(t)(f.Tripodctl(t.Context(), "hub", "sign", "--key", o.key, "--as", o.name, local))
	path := filepath.Join(hubFolder, filepath.Base(o.key)+".signature")
	f.inside(t.Context(), t, remoteCenter, fmt.Sprintf("cat > %s <<'END'\n%s\nEND", path, signature))
	return path
}

// refusesWrites: what is left of the hub is a minority, and says so.
func (f *Fleet) refusesWrites(t *testing.T) {
	t.Helper()
	err := f.await(t.Context(), time.Minute, "the survivor knows no leader", func(ctx context.Context) (string, error) {
		text, err := f.Tripodctl(ctx, "hub", "status", "--hub", f.address(remoteCenter))
		if err != nil || strings.Contains(text, "leader none") {
			return "", err
		}
		return text, nil
	})
	if err != nil {
		t.Error(err)
	}
	out, err := f.Tripodctl(t.Context(), "failover", "pay/ledger", "--to", remoteCenter, "--hub", f.address(remoteCenter))
	if err == nil {
		t.Errorf("a minority of the hub took the order of a failover: %s", out)
	}
}

// begin starts a new incarnation of the hub on the survivor: one signature of the
// statement is refused, two are not. action is recover or restore with its flags.
func (f *Fleet) begin(t *testing.T, operators []operator, action string, incarnation uint64) {
	t.Helper()
	const statement = hubFolder + "/statement.json"
	verb, flags, _ := strings.Cut(action, " ")
	command := machine.BinDir + "/tripod-hub " + verb + " --config " + hubConfig + " " + flags
	f.inside(t.Context(), t, remoteCenter, stopped+"\n"+command+" > "+statement)
	first, second := f.sign(t, operators[0], statement), f.sign(t, operators[1], statement)
	refused := f.inside(t.Context(), t, remoteCenter, fmt.Sprintf("! %s --statement %s --signature %s 2>&1", command, statement, first))
	says(t, refused, "1 of 2 signatures")
	said := f.inside(t.Context(), t, remoteCenter, fmt.Sprintf("%s --statement %s --signature %s --signature %s 2>&1", command, statement, first, second))
	says(t, said, fmt.Sprintf("incarnation %d is ready", incarnation))
	f.inject(t, fault.Fault{Kind: fault.PowerOn, Center: remoteCenter}) // starts it again
	err := f.await(t.Context(), time.Minute, "the survivor leads the new incarnation", func(ctx context.Context) (string, error) {
		status, err := f.askHub(ctx, remoteCenter)
		if err != nil || status.Leader == survivor && status.Incarnation == incarnation {
			return "", err
		}
		return fmt.Sprintf("it says %+v", status), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// leftBehind waits until the members that came back say what they are, and checks
// that they neither lead nor write.
func (f *Fleet) leftBehind(t *testing.T) {
	t.Helper()
	for _, center := range city {
		err := f.await(t.Context(), time.Minute, "hub-"+center+" knows that it was left behind", func(ctx context.Context) (string, error) {
			text, err := f.Tripodctl(ctx, "hub", "status", "--hub", f.address(center))
			if err != nil || strings.Contains(text, "the hub has gone on without this member") {
				return "", err
			}
			return text, nil
		})
		if err != nil {
			t.Error(err)
		}
		if status, err := f.askHub(t.Context(), center); err != nil || status.Leader != "" {
			t.Errorf("hub-%s, which was left behind, knows the leader %q: %v", center, status.Leader, err)
		}
	}
}

// rejoin empties the members that were left behind, and lets them join as new.
func (f *Fleet) rejoin(t *testing.T) {
	t.Helper()
	for _, center := range city {
		f.loseMember(t, center)
		must(t)(f.Tripodctl(t.Context(), "hub", "add", "hub-"+center, "--region", "north", "--center", center, "--address", f.address(center), "--hub", f.address(remoteCenter)))
		f.inject(t, fault.Fault{Kind: fault.PowerOn, Center: center})
	}
	err := f.await(t.Context(), 2*time.Minute, "three members vote again", func(ctx context.Context) (string, error) {
		text, err := f.Tripodctl(ctx, "hub", "members", "--hub", f.address(remoteCenter))
		if err != nil {
			return "", err
		}
		votes := 0
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "yes" {
				votes++
			}
		}
		if votes != 3 {
			return text, nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
}

// loseMember kills the hub's member in center, if it runs, and empties its folder.
func (f *Fleet) loseMember(t *testing.T, center string) {
	t.Helper()
	if _, err := f.Lab.Inject(t.Context(), fault.Fault{Kind: fault.Kill, Process: "hub", Center: center}); err != nil {
		t.Logf("kill the member of %s: %v", center, err) // it was down
	}
	f.inside(t.Context(), t, center, stopped+"\nrm -rf "+hubFolder+"/data")
}

// hubStatus is what a member says of the hub.
type hubStatus struct {
	Leader      string `json:"leader"`
	Incarnation uint64 `json:"incarnation"`
}

// askHub asks the member in center; any member if it is empty.
func (f *Fleet) askHub(ctx context.Context, center string) (hubStatus, error) {
	arguments := []string{"hub", "status", "-o", "json"}
	if center != "" {
		arguments = append(arguments, "--hub", f.address(center))
	}
	text, err := f.Tripodctl(ctx, arguments...)
	if err != nil {
		return hubStatus{}, err
	}
	var status hubStatus
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return hubStatus{}, fmt.Errorf("read the hub's status: %w", err)
	}
	return status, nil
}

func (f *Fleet) hubStatus(t *testing.T) hubStatus {
	t.Helper()
	status, err := f.askHub(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func (f *Fleet) inject(t *testing.T, what fault.Fault) {
	t.Helper()
	if _, err := f.Inject(t.Context(), what); err != nil {
		t.Fatal(err)
	}
}
