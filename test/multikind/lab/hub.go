package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/test/multikind/center"
)

// startHub starts the center's hub member. A member whose program was built anew
// since is replaced, so that a developer's `multikind up` tests what was just built.
func (l *Lab) startHub(ctx context.Context, b *box) error {
	token, err := l.hubToken()
	if err != nil {
		return err
	}
	if err := b.plan.PrepareHub(l.path(b.plan.Name, "lib"), l.plans, token); err != nil {
		return err
	}
	if err := l.retireHub(ctx, b); err != nil {
		return err
	}
	return l.ensure(ctx, b, b.plan.HubProcess())
}

func (l *Lab) retireHub(ctx context.Context, b *box) error {
	list, err := b.client.List(ctx)
	if err != nil || !list[center.Hub].Running {
		return err
	}
	victims, err := l.victims(ctx, b, center.Hub)
	if err != nil {
		return err
	}
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", victims[0]))
	if err != nil || !strings.HasSuffix(program, " (deleted)") {
		return nil
	}
	if err := unix.Kill(victims[0], unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end old hub member: %w", err)
	}
	return awaitEnd(ctx, b, center.Hub)
}

// hubToken returns the secret of the lab's hub members, making it once.
func (l *Lab) hubToken() ([]byte, error) {
	l.hubTokenMu.Lock()
	defer l.hubTokenMu.Unlock()
	path := l.path("hub-token")
	token, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("make hub token: %w", err)
	}
	token = []byte(hex.EncodeToString(secret))
	return token, replaceFile(path, token, 0o600)
}

// awaitHub waits until every hub member is ready and returns the hub administrator's
// kubeconfig.
func (l *Lab) awaitHub(ctx context.Context) (*api.Config, error) {
	path := center.HubAdminKubeconfig(l.path(l.plans[0].Name, "lib"))
	first, err := l.findBox(ctx, l.plans[0])
	if err != nil {
		return nil, err
	}
	if first == nil {
		return nil, fmt.Errorf("wait for the hub: %s has no power", l.plans[0].Name)
	}
	defer first.Close()
	var admin *api.Config
	err = await(ctx, first, center.Hub, "the hub administrator's kubeconfig", func(context.Context) error {
		var err error
		admin, err = clientcmd.LoadFromFile(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.NewDefaultClientConfig(*admin, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the hub administrator's kubeconfig: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, plan := range l.plans {
		group.Go(func() error { return l.awaitMember(ctx, plan, config, l.HubAddresses()[i]) })
	}
	return admin, group.Wait()
}

func (l *Lab) awaitMember(ctx context.Context, plan center.Plan, admin *rest.Config, address string) error {
	b, err := l.findBox(ctx, plan)
	if err != nil || b == nil {
		return errors.Join(err, fmt.Errorf("wait for hub member %s: no machine", plan.HubMember()))
	}
	defer b.Close()
	client, err := rest.HTTPClientFor(admin)
	if err != nil {
		return fmt.Errorf("make hub client: %w", err)
	}
	defer client.CloseIdleConnections()
	err = await(ctx, b, center.Hub, "hub member "+plan.HubMember(), func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask hub member: %w", err)
		}
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("ask hub member: %w", err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("ask hub member: /readyz answered %s", response.Status)
		}
		return nil
	})
	if err == nil {
		l.report(plan.Name + ": hub member is ready")
	}
	return err
}

// joinClusters puts an agent into each cluster and waits until the hub says that all
// are Ready. Clusters that have one already keep it.
func (l *Lab) joinClusters(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, plan := range l.plans {
		group.Go(func() error { return l.join(groupCtx, plan) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b, err := l.findBox(ctx, l.plans[0])
	if err != nil || b == nil {
		return errors.Join(err, fmt.Errorf("%s has no power", l.plans[0].Name))
	}
	defer b.Close()
	return await(ctx, b, center.Hub, "all clusters to be Ready in the hub", func(ctx context.Context) error {
		_, err := l.tripodctl(ctx, "clusters")
		return err
	})
}

// join is the way a user lets a cluster join: a token, a manifest, kubectl apply.
func (l *Lab) join(ctx context.Context, plan center.Plan) error {
	record := l.path(plan.Name, "lib", "kubernetes", "joined")
	if _, err := os.Stat(record); err == nil {
		return nil
	}
	manifest, err := l.tripodctl(ctx, "agent-manifest", plan.Name, "--region", plan.Region, "--center", plan.Name,
		"--agent-address", fmt.Sprintf("%s:%d", plan.Address, center.AgentPort))
	if err != nil {
		return fmt.Errorf("join %s: %w", plan.Name, err)
	}
	if err := l.kubectl(ctx, plan, manifest, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		return fmt.Errorf("join %s: %w", plan.Name, err)
	}
	l.report(plan.Name + ": agent is installed")
	return replaceFile(record, nil, 0o644)
}

func (l *Lab) tripodctl(ctx context.Context, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, filepath.Join(l.state.BinDir, "tripodctl"), arguments...)
	command.Env = os.Environ()
	for _, variable := range l.Environment() {
		command.Env = append(command.Env, variable.Name+"="+variable.Value)
	}
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run tripodctl %s: %w: %s%s", arguments[0], err, complaint.String(), out)
	}
	return out, nil
}

func (l *Lab) kubectl(ctx context.Context, plan center.Plan, input []byte, arguments ...string) error {
	arguments = append([]string{"kubectl", "--kubeconfig", l.Kubeconfig(), "--context", DirectContext(plan.Name)}, arguments...)
	command := exec.CommandContext(ctx, filepath.Join(l.state.BinDir, "kubernode"), arguments...)
	command.Stdin = bytes.NewReader(input)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run kubectl: %w: %s", err, out)
	}
	return nil
}
