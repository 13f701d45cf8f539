// Package libflux replaces flux/libflux/go/libflux, the parser of Flux, which is written in Rust. All its functions fail.
package libflux

import (
	"context"
	"errors"

	"github.com/influxdata/flux/semantic"
)

var errNoFlux = errors.New("this build of InfluxDB has no Flux")

type ASTPkg struct{}

func (ASTPkg) ASTHandle()                    {}
func (ASTPkg) Format() (string, error)       { return "", errNoFlux }
func (ASTPkg) GetError(Options) error        { return errNoFlux }
func (*ASTPkg) MarshalJSON() ([]byte, error) { return nil, errNoFlux }
func (*ASTPkg) Free()                        {}

func Parse(string, string) *ASTPkg         { return &ASTPkg{} }
func ParseString(string) *ASTPkg           { return &ASTPkg{} }
func ParseJSON([]byte) (*ASTPkg, error)    { return nil, errNoFlux }
func MergePackages(*ASTPkg, *ASTPkg) error { return errNoFlux }

type Options struct{}

func NewOptions(context.Context) Options { return Options{} }

type SemanticPkg struct{}

func (*SemanticPkg) MarshalFB() ([]byte, error) { return nil, errNoFlux }
func (*SemanticPkg) Free()                      {}

func Analyze(*ASTPkg) (*SemanticPkg, error)                      { return nil, errNoFlux }
func AnalyzeWithOptions(*ASTPkg, Options) (*SemanticPkg, error)  { return nil, errNoFlux }
func SemanticPackages() (map[string]*semantic.Package, error)    { return nil, errNoFlux }
func FindVarTypes(string, []string) ([]semantic.MonoType, error) { return nil, errNoFlux }
func EnvStdlib() []byte                                          { return nil }
