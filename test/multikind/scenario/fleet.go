package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
)

// Fleet is a lab with a hub, seen as its operator sees it.
type Fleet struct {
	Lab    *lab.Lab
	config lab.Config
	tell   func(string)

	mu sync.Mutex
	// doors holds the open clients by the centers they avoid.
	doors map[string]client.WithWatch
}

// Boot brings the lab up, or repairs it, and waits until every cluster is ready
// in the hub's own words.
func Boot(ctx context.Context, config lab.Config, tell func(string)) (*Fleet, error) {
	l, err := lab.Up(ctx, config, tell)
	if err != nil {
		return nil, err
	}
	if config.BinDir == "" {
		config.BinDir = lab.DefaultBinDir
	}
	f := &Fleet{Lab: l, config: config, tell: tell, doors: map[string]client.WithWatch{}}
	return f, f.AwaitClusters(ctx)
}

// API returns a client to the hub through the first member that answers;
// members in the avoided centers are asked last. A client is kept until forget,
// because connections to a center without power hang rather than fail.
func (f *Fleet) API(avoid ...string) (client.WithWatch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	door := strings.Join(avoid, ",")
	if c, ok := f.doors[door]; ok {
		return c, nil
	}
	config, err := f.Lab.RESTConfig("hub")
	if err != nil {
		return nil, err
	}
	config.Timeout = 5 * time.Second
	config.QPS, config.Burst = 200, 400
	config.Dial = endpoint.Dialer(f.members(avoid))
	config.ServerName = endpoint.ServerName
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register the kinds: %w", err)
		}
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("open the hub's API: %w", err)
	}
	f.doors[door] = c
	return c, nil
}

// forget drops every client, so that the next one finds a member that lives.
func (f *Fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.doors)
}

// members returns HOST:6443 of every hub member, those of avoided centers last.
func (f *Fleet) members(avoid []string) []string {
	var first, last []string
	for _, c := range f.Lab.Centers() {
		address := net.JoinHostPort(c.Address.String(), endpoint.APIPort)
		if slices.Contains(avoid, c.Name) {
			last = append(last, address)
		} else {
			first = append(first, address)
		}
	}
	return append(first, last...)
}

// Resolvers returns the hub members' DNS servers.
func (f *Fleet) Resolvers() []string {
	var servers []string
	for _, c := range f.Lab.Centers() {
		servers = append(servers, net.JoinHostPort(c.Address.String(), "53"))
	}
	return servers
}

// Inject does a fault and tells it.
func (f *Fleet) Inject(ctx context.Context, what fault.Fault) (fault.Effect, error) {
	effect, err := f.Lab.Inject(ctx, what)
	if err != nil {
		return effect, fmt.Errorf("inject %s: %w", what, err)
	}
	f.forget()
	f.tell(effect.String())
	return effect, nil
}

// Repair brings everything up again after faults.
func (f *Fleet) Repair(ctx context.Context) error {
	l, err := lab.Up(ctx, f.config, f.tell)
	if err != nil {
		return err
	}
	f.Lab = l
	f.forget()
	return nil
}

// Tripodctl runs the operator's command line and returns what it printed. Exit
// code 2 (the report was printed and something is not well) is not an error.
func (f *Fleet) Tripodctl(ctx context.Context, arguments ...string) (string, error) {
	return f.command(ctx, nil, "tripodctl", arguments...)
}

// Kubectl runs kubectl, with input on its standard input.
func (f *Fleet) Kubectl(ctx context.Context, input io.Reader, arguments ...string) (string, error) {
	return f.command(ctx, input, "kubernode", append([]string{"kubectl"}, arguments...)...)
}

func (f *Fleet) command(ctx context.Context, input io.Reader, program string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(f.config.BinDir, program), arguments...)
	cmd.Env = os.Environ()
	for _, v := range f.Lab.Environment() {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.Stdin = input
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 && errs.Len() == 0 {
		err = nil
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Leader returns the center of the hub member that leads.
func (f *Fleet) Leader(ctx context.Context) (string, error) {
	text, err := f.Tripodctl(ctx, "hub", "status", "-o", "json")
	if err != nil {
		return "", err
	}
	var status struct {
		Members []struct {
			Center string `json:"center"`
			Leader bool   `json:"leader"`
		} `json:"members"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return "", fmt.Errorf("read the hub's status: %w", err)
	}
	for _, m := range status.Members {
		if m.Leader {
			return m.Center, nil
		}
	}
	return "", errors.New("the hub has no leader now")
}

// LeadFrom hands the hub's leadership to the member in center.
func (f *Fleet) LeadFrom(ctx context.Context, center string) error {
	return f.await(ctx, time.Minute, "the hub is led from "+center, func(ctx context.Context) (string, error) {
		leader, err := f.Leader(ctx)
		if err != nil || leader == center {
			return "", err
		}
		if _, err := f.Tripodctl(ctx, "hub", "transfer", "hub-"+center); err != nil {
			return "", err
		}
		return "it is led from " + leader, nil
	})
}

// address is where the hub's member of a center is, and its nodes; empty of an unknown center.
func (f *Fleet) address(center string) string {
	for _, c := range f.Lab.Centers() {
		if c.Name == center {
			return c.Address.String()
		}
	}
	return ""
}

func (f *Fleet) recoveryRun(ctx context.Context, name string) (*v1alpha1.RecoveryRun, error) {
	api, err := f.API()
	if err != nil {
		return nil, err
	}
	var r v1alpha1.RecoveryRun
	return &r, api.Get(ctx, client.ObjectKey{Name: name}, &r)
}
