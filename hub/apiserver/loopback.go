package apiserver

import (
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// Authorizer is the hub's: RBAC, and the rules for the system itself.
func (s *Server) Authorizer() authorizer.Authorizer {
	return s.chain.controlPlane.Generic.Authorization.Authorizer
}

func servingHook(serving chan struct{}) genericapiserver.PostStartHookFunc {
	return func(genericapiserver.PostStartHookContext) error {
		close(serving)
		return nil
	}
}

func quietZap() *zap.Logger { return zap.NewNop() }
