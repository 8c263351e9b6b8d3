package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
)

// explain adds to an error of the connection what a person can do about it.
func explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var failed *discovery.ErrGroupDiscoveryFailed
	var request *url.Error
	switch {
	case err == nil || errors.Is(err, errNotReady):
		return err
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: the server is not a member of the hub that this kubeconfig belongs to; compare --kubeconfig, --context and TRIPOD_HUB", err)
	case meta.IsNoMatchError(err), errors.As(err, &failed):
		return fmt.Errorf("%w: the server serves no Tripod kinds; is it a hub, and does its log say that it is ready?", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: the hub does not accept these credentials; a fresh admin.kubeconfig is in a member's data folder", err)
	case apierrors.IsTooManyRequests(err), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), errors.As(err, &request) && request.Timeout():
		return fmt.Errorf("%s: the hub may have no leader; `tripodctl hub status` tells which members it lacks", without(err, request))
	case request != nil:
		return fmt.Errorf("%s; see that tripod-hub runs there and that port 6443 can be reached, or name other members with --hub or TRIPOD_HUB", without(err, request))
	default:
		return err
	}
}

// without is the text of err without the method and the URL of the request.
func without(err error, request *url.Error) string {
	if request == nil {
		return err.Error()
	}
	text := strings.Replace(err.Error(), request.Error(), request.Err.Error(), 1)
	return strings.Replace(text, "failed to get server groups: ", "", 1)
}

// plain takes gRPC's wrapping off an error, and says what to do about a hub that
// does not answer.
func plain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	message := s.Message()
	if _, inner, wrapped := strings.Cut(message, `desc = "transport: `); wrapped {
		message = strings.TrimSuffix(strings.TrimPrefix(inner, "Error while dialing: "), `"`)
	}
	switch {
	case strings.Contains(message, "x509: certificate signed by unknown authority"):
		return fmt.Errorf("%s: the server is not a member of the hub that this kubeconfig belongs to; compare --kubeconfig, --context and TRIPOD_HUB", message)
	case s.Code() == codes.Unavailable && message != s.Message(), s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("%s; see that tripod-hub runs there and that port 6444 can be reached, or name other members with --hub or TRIPOD_HUB", message)
	default:
		return errors.New(message)
	}
}
