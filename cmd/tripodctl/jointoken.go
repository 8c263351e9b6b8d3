package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// joining is what a person says of a cluster that is to join.
type joining struct {
	region, center string
	// address is where the agents of other clusters reach this one's.
	address string
	ttl     time.Duration
	rejoin  bool
}

func (j *joining) flags(f *pflag.FlagSet) {
	f.StringVar(&j.region, "region", "", "region of the cluster (needed when the hub does not know the cluster yet)")
	f.StringVar(&j.center, "center", "", "center of the cluster (needed when the hub does not know the cluster yet)")
	f.StringVar(&j.address, "agent-address", "", "HOST:PORT where the agents of other clusters reach this cluster's: without it no database elsewhere outlives the hub on a pledge of this cluster")
	f.DurationVar(&j.ttl, "ttl", time.Hour, "how long the token is good")
	f.BoolVar(&j.rejoin, "rejoin", false, "let a cluster that has joined join again, with a new key")
}

func newJoinTokenCommand(door *connection) *cobra.Command {
	var j joining
	c := &cobra.Command{
		Use:   "join-token CLUSTER",
		Short: "Make a token with which one cluster can join once",
		Long: `Make a token with which one cluster can join once.

The token is good for this cluster's name, at this hub, until it is used or
expires. Making it accepts the cluster: the hub makes the Cluster object if
there is none. The token is a secret; it is the only thing printed on standard
output.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := j.token(cmd.Context(), door, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	j.flags(c.Flags())
	return c
}

// token accepts the cluster and records a new token for it in the hub.
func (j *joining) token(ctx context.Context, door *connection, cluster string) (jointoken.Token, error) {
	if j.ttl <= 0 {
		return jointoken.Token{}, fmt.Errorf("--ttl is %s: a token must be good for some time, for instance 1h", j.ttl)
	}
	config, err := door.restConfig()
	if err != nil {
		return jointoken.Token{}, err
	}
	trusted, err := door.trusted(ctx, config)
	if err != nil {
		return jointoken.Token{}, err
	}
	ca, err := authority(trusted)
	if err != nil {
		return jointoken.Token{}, err
	}
	token, err := jointoken.New(cluster, ca)
	if err != nil {
		return jointoken.Token{}, err
	}
	api, err := door.client()
	if err != nil {
		return jointoken.Token{}, err
	}
	if err := j.accept(ctx, api, cluster); err != nil {
		return jointoken.Token{}, err
	}
	if err := api.Create(ctx, token.NewSecret(time.Now().Add(j.ttl), j.rejoin)); err != nil {
		return jointoken.Token{}, fmt.Errorf("record the join token of %s: %w", cluster, err)
	}
	return token, nil
}

// accept makes the Cluster, or accepts the one that is there and has not joined.
func (j *joining) accept(ctx context.Context, api client.Client, name string) error {
	var cluster v1alpha1.Cluster
	err := api.Get(ctx, client.ObjectKey{Name: name}, &cluster)
	switch {
	case apierrors.IsNotFound(err):
		if j.region == "" || j.center == "" {
			return fmt.Errorf("the hub does not know the cluster %s: say where it is with --region and --center", name)
		}
		cluster = v1alpha1.Cluster{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.ClusterSpec{
				Region: j.region, Center: j.center, Admission: v1alpha1.AdmissionAccepted,
				Access: v1alpha1.ClusterAccess{Mode: v1alpha1.AccessTunnel}, AgentAddress: j.address,
			},
		}
		if err := api.Create(ctx, &cluster); err != nil {
			return fmt.Errorf("make the cluster %s: %w", name, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("get the cluster %s: %w", name, err)
	}
	if (j.region != "" && j.region != cluster.Spec.Region) || (j.center != "" && j.center != cluster.Spec.Center) {
		return fmt.Errorf("the name %s is taken by a cluster in region %s, center %s: choose another name, or leave --region and --center out",
			name, cluster.Spec.Region, cluster.Spec.Center)
	}
	if cluster.HasJoined() && !j.rejoin {
		return fmt.Errorf("the name %s is taken by a cluster that has joined: choose another name, or give --rejoin if its agent lost its key", name)
	}
	if cluster.Spec.Admission == v1alpha1.AdmissionAccepted && (j.address == "" || j.address == cluster.Spec.AgentAddress) {
		return nil
	}
	cluster.Spec.Admission = v1alpha1.AdmissionAccepted
	if j.address != "" {
		cluster.Spec.AgentAddress = j.address
	}
	if err := api.Update(ctx, &cluster); err != nil {
		return fmt.Errorf("accept the cluster %s: %w", name, err)
	}
	return nil
}

// authority returns the CA of the certificates that members show, the first of those
// that are trusted.
func authority(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the kubeconfig holds no CA certificate, which a join token pins: use the admin.kubeconfig of a hub member")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the hub's CA: %w", err)
	}
	return ca, nil
}
