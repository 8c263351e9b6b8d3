package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/traffic"
)

// The shelf is an application on a state that Tripod has no guard for: a register
// (test/register) in two centers of a city, which its driver beside the agents tells
// what to do, and nobody else can stop.
const (
	shelf        = "shelf"
	shelfPort    = "7700"
	shelfControl = "7701"
)

var shelfCenters = []string{"north-1", "north-2"}

// registers are copies in the shelf's centers: the Deployment register of a namespace, and
// the driver beside the agents.
type registers struct {
	namespace string
	serve     string // the arguments of what holds the copies
	volume    string // of the emptyDir that they are in
	// drive are the further arguments of a center's driver; nil for none.
	drive func(center string) []string
}

// workload has the node's network, so that a copy's address is where the process itself
// listens.
func (r registers) workload() string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: register, namespace: %[1]s}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: register}}
  template:
    metadata: {labels: {app: register}}
    spec:
      hostNetwork: true
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
      - name: register
        image: tripod.dev/register:dev
        imagePullPolicy: IfNotPresent
        args: [%[2]s, --volume=/data]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {%[3]s}}]
`, r.namespace, r.serve, r.volume)
}

// besideAgent puts the register's driver beside the agent, with %s as its arguments, as
// docs/checklists/new-driver.md says.
const besideAgent = `[
{"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"name": "drivers", "emptyDir": {}}},
{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--drivers=register=/run/drivers/register.sock"},
{"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": {"name": "drivers", "mountPath": "/run/drivers"}},
{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "register-driver", "image": "tripod.dev/register:dev", "imagePullPolicy": "IfNotPresent",
  "args": %s, "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
  "volumeMounts": [{"name": "drivers", "mountPath": "/run/drivers"}]}}]`

// shelfObjects are what the hub is told of it.
const shelfObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: shelf}
---
apiVersion: tripod.dev/v1alpha1
kind: Dataset
metadata: {name: register, namespace: shelf}
spec:
  driver: register
  protection: MaxAvailability
  members:
  - {cluster: north-1, address: "NORTH-1:7700", parameters: {control: "NORTH-1:7701"}}
  - {cluster: north-2, address: "NORTH-2:7700", parameters: {control: "NORTH-2:7701"}}
---
apiVersion: tripod.dev/v1alpha1
kind: Application
metadata: {name: shelf, namespace: shelf}
spec:
  datasets: [register]
  failover: {withinRegion: Automatic, acrossRegions: Approval, holdSeconds: 1}
`

// deployShelf forms the shelf and returns it protected. It is taken away with the test,
// the driver beside the agents too.
func deployShelf(t *testing.T, f *Fleet) *v1alpha1.Dataset {
	t.Helper()
	f.driveRegisters(t, registers{namespace: shelf, serve: "serve, --data=:7700, --control=:7701"}, func() { dropRegisters(t, f, shelf) })
	objects := strings.NewReplacer("NORTH-1", f.address("north-1"), "NORTH-2", f.address("north-2")).Replace(shelfObjects)
	must(t)(f.Kubectl(t.Context(), strings.NewReader(objects), "--context", "hub", "apply", "--server-side", "-f", "-"))
	return f.shelfProtected(t, 1)
}

// driveRegisters starts them with their driver beside the agents. What drop takes away,
// now and with the test, goes before the driver: agents that have datasets and no driver
// for them would complain of each.
func (f *Fleet) driveRegisters(t *testing.T, r registers, drop func()) {
	t.Helper()
	drop()
	var driven []string
	t.Cleanup(func() {
		for _, c := range driven {
			restoreAgents(t, f, c)
		}
	})
	t.Cleanup(drop)
	for _, c := range shelfCenters {
		must(t)(f.Kubectl(t.Context(), strings.NewReader(r.workload()), "--context", "direct-"+c, "apply", "--server-side", "-f", "-"))
		drive := []string{"drive", "--socket=/run/drivers/register.sock"}
		if r.drive != nil {
			drive = append(drive, r.drive(c)...)
		}
		arguments, err := json.Marshal(drive)
		if err != nil {
			t.Fatal(err)
		}
		must(t)(f.agents(t.Context(), c, "patch", "deployment/tripod-agent", "--type=json", "--patch", fmt.Sprintf(besideAgent, arguments)))
		driven = append(driven, c)
	}
	for _, c := range shelfCenters {
		must(t)(f.agents(t.Context(), c, "rollout", "status", "deployment/tripod-agent", "--timeout=4m"))
		must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-"+c, "-n", r.namespace, "rollout", "status", "deployment/register", "--timeout=2m"))
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// agents is kubectl about a cluster's agents.
func (f *Fleet) agents(ctx context.Context, center string, arguments ...string) (string, error) {
	return f.Kubectl(ctx, nil, append([]string{"--context", "direct-" + center, "-n", "tripod-system"}, arguments...)...)
}

// restoreAgents takes the driver away again.
func restoreAgents(t *testing.T, f *Fleet, center string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	for _, do := range [][]string{{"rollout", "undo", "deployment/tripod-agent"}, {"rollout", "status", "deployment/tripod-agent", "--timeout=4m"}} {
		if _, err := f.agents(ctx, center, do...); err != nil {
			t.Errorf("restore the agents of %s: %v", center, err)
		}
	}
	if err := f.AwaitClusters(ctx); err != nil {
		t.Error(err)
	}
}

// dropRegisters takes a namespace away and waits for it: a scenario may be played again.
func dropRegisters(t *testing.T, f *Fleet, namespace string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	defer cancel()
	for _, where := range append([]string{"hub"}, "direct-north-1", "direct-north-2") {
		if _, err := f.Kubectl(ctx, nil, "--context", where, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=8m"); err != nil {
			t.Errorf("take %s away from %s: %v", namespace, where, err)
		}
	}
}

// shelfProtected waits until the register is Steady at an epoch, and each copy holds
// every write that is acknowledged.
func (f *Fleet) shelfProtected(t *testing.T, epoch int64) *v1alpha1.Dataset {
	t.Helper()
	var d *v1alpha1.Dataset
	err := f.await(t.Context(), 3*time.Minute, fmt.Sprintf("the register is Steady at epoch %d, with both copies in its sync set", epoch), func(ctx context.Context) (missing string, err error) {
		if d, err = f.register(ctx); err != nil {
			return "", err
		}
		if d.Status.Phase != v1alpha1.DatasetSteady || d.Status.Epoch != epoch || len(d.Status.SyncSet) != len(shelfCenters) {
			missing = fmt.Sprintf("it is %s at epoch %d, sync set %v: %s", d.Status.Phase, d.Status.Epoch, d.Status.SyncSet, states(d))
		}
		return missing, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (f *Fleet) register(ctx context.Context) (*v1alpha1.Dataset, error) {
	api, err := f.API()
	if err != nil {
		return nil, err
	}
	var d v1alpha1.Dataset
	return &d, api.Get(ctx, client.ObjectKey{Namespace: shelf, Name: "register"}, &d)
}

// lie breaks the API that the register's driver is given, or mends it.
func (f *Fleet) lie(ctx context.Context, center string, lies bool) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+net.JoinHostPort(f.address(center), shelfControl)+"/lie?fence="+strconv.FormatBool(lies), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the register in %s: %s", center, response.Status)
	}
	return response.Body.Close()
}

// written is one line that a copy acknowledged: sent and answered on the clock that all
// centers share.
type written struct {
	line           string
	sent, answered int64
}

// writers are the clients of one register, and know what it has acknowledged.
type writers struct {
	fleet   *Fleet
	address func(center string) string // of the copy there
	stop    context.CancelFunc
	work    sync.WaitGroup

	mu       sync.Mutex
	accepted map[string][]written // by center
	said     map[string]string    // the last refusal, by center
}

func (f *Fleet) newWriters(address func(center string) string) *writers {
	return &writers{fleet: f, address: address, stop: func() {}, accepted: map[string][]written{}, said: map[string]string{}}
}

// startWriters tries to write at every copy of the shelf all the time.
func (f *Fleet) startWriters(t *testing.T) *writers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := f.newWriters(f.shelfAddress)
	w.stop = cancel
	for _, c := range shelfCenters {
		w.work.Go(func() { w.run(ctx, c) })
	}
	t.Cleanup(w.end)
	return w
}

func (w *writers) end() {
	w.stop()
	w.work.Wait()
}

func (w *writers) run(ctx context.Context, center string) {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		w.try(ctx, center, n)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// try writes one line at one copy, over a new connection.
func (w *writers) try(ctx context.Context, center string, n int) {
	line := fmt.Sprintf("%s-%d", center, n)
	sent := traffic.Monotonic()
	answer, err := ask(ctx, w.address(center), "WRITE "+line)
	answered := traffic.Monotonic()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && strings.HasPrefix(answer[0], "OK ") {
		w.accepted[center] = append(w.accepted[center], written{line, sent, answered})
	} else {
		w.said[center] = fmt.Sprint(answer, err)
	}
}

// count is how many lines a copy has acknowledged.
func (w *writers) count(center string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accepted[center])
}

// await waits until a copy has acknowledged n more lines.
func (w *writers) await(t *testing.T, center string, n int) {
	t.Helper()
	want := w.count(center) + n
	err := w.fleet.await(t.Context(), time.Minute, fmt.Sprintf("%s acknowledges %d more lines", center, n), func(context.Context) (string, error) {
		if has := w.count(center); has < want {
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Sprintf("%d of %d, last refused: %s", has, want, w.said[center]), nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (f *Fleet) shelfAddress(center string) string {
	return net.JoinHostPort(f.address(center), shelfPort)
}

// ask sends one line to the copy at HOST:PORT and returns what it answers; READ answers
// a number and then as many lines.
func ask(ctx context.Context, address, line string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return nil, err
	}
	in := bufio.NewScanner(conn)
	var answer []string
	for in.Scan() {
		answer = append(answer, in.Text())
		more := 0
		if line == "READ" {
			more, _ = strconv.Atoi(answer[0])
		}
		if len(answer) > more {
			return answer, nil
		}
	}
	return nil, fmt.Errorf("the register at %s ended the connection: %w", address, io.ErrUnexpectedEOF)
}

// audit fails the test when the new primary does not hold what both copies acknowledged,
// or both accepted at once.
func (w *writers) audit(t *testing.T, old, now string) {
	t.Helper()
	w.end()
	lost, double, late, err := w.judged(t.Context(), old, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("audit: %d lines of %s and %d of %s were acknowledged; %d lost, %d double; %d by %s after %s had begun",
		len(w.accepted[old]), old, len(w.accepted[now]), now, lost, double, late, old, now)
	if lost+double+late != 0 {
		t.Error("the register is not what its clients were told")
	}
}

// judged asks the new primary what it holds, and judges it.
func (w *writers) judged(ctx context.Context, old, now string) (lost, double, late int, err error) {
	answer, err := ask(ctx, w.address(now), "READ")
	if err != nil {
		return 0, 0, 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	lost, double, late = judge(w.accepted[old], w.accepted[now], answer[1:])
	return lost, double, late, nil
}

// judge counts the lines that were acknowledged and that the new primary does not hold,
// or holds twice; and those that the old one acknowledged although they were sent after
// the new one had acknowledged one. It is pure.
func judge(old, now []written, held []string) (lost, double, late int) {
	times := map[string]int{}
	for _, line := range held {
		times[line]++
	}
	for _, a := range slices.Concat(old, now) {
		switch times[a.line] {
		case 0:
			lost++
		case 1:
		default:
			double++
		}
	}
	for _, a := range old {
		if len(now) > 0 && a.sent > now[0].answered {
			late++
		}
	}
	return lost, double, late
}

func TestTheShelfIsJudged(t *testing.T) {
	one, two, three := written{"one", 1, 2}, written{"two", 3, 6}, written{"three", 7, 8}
	for name, tc := range map[string]struct {
		old, now []written
		held     []string
		want     [3]int // lost, double, late
	}{
		"everything is there":                {[]written{one, two}, []written{three}, []string{"probe", "one", "two", "three"}, [3]int{}},
		"nothing was moved":                  {[]written{one, two}, nil, []string{"one", "two"}, [3]int{}},
		"the old one answered while it went": {[]written{one, {"two", 3, 9}}, []written{three}, []string{"one", "two", "three"}, [3]int{}},
		"a line is lost":                     {[]written{one, two}, []written{three}, []string{"one", "three"}, [3]int{1, 0, 0}},
		"the new one has lost its own":       {[]written{one}, []written{three}, []string{"one"}, [3]int{1, 0, 0}},
		"a line is there twice":              {[]written{one}, []written{three}, []string{"one", "one", "three"}, [3]int{0, 1, 0}},
		"both accept":                        {[]written{one, {"four", 9, 10}}, []written{three}, []string{"one", "three", "four"}, [3]int{0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			lost, double, late := judge(tc.old, tc.now, tc.held)
			if got := [3]int{lost, double, late}; got != tc.want {
				t.Errorf("%d lost, %d double, %d late; want %v", lost, double, late, tc.want)
			}
		})
	}
}
