"""Rules that combine the gradients of several objectives, one module each.

In comes what a rule reads (a Gramian, rows or losses of K objectives), out go weights
or an update, and the rule's own state. It may import ``_gramians``, and of
``_gradients`` the mesh axes.
"""

from mmpareto_jax.weightings._aligned_mtl import aligned_mtl as aligned_mtl
from mmpareto_jax.weightings._cagrad import cagrad as cagrad
from mmpareto_jax.weightings._conflict_free import config as config
from mmpareto_jax.weightings._constant import constant as constant
from mmpareto_jax.weightings._cosmos import cosmos as cosmos
from mmpareto_jax.weightings._db_mtl import db_mtl as db_mtl
from mmpareto_jax.weightings._dcgd import dcgd as dcgd
from mmpareto_jax.weightings._dualproj import dualproj as dualproj
from mmpareto_jax.weightings._dwa import dwa as dwa
from mmpareto_jax.weightings._excess_mtl import excess_mtl as excess_mtl
from mmpareto_jax.weightings._fairgrad import fairgrad as fairgrad
from mmpareto_jax.weightings._famo import famo as famo
from mmpareto_jax.weightings._geometric_mean import geometric_mean as geometric_mean
from mmpareto_jax.weightings._graddrop import graddrop as graddrop
from mmpareto_jax.weightings._gradnorm import gradnorm as gradnorm
from mmpareto_jax.weightings._gradvac import gradvac as gradvac
from mmpareto_jax.weightings._imtl_g import imtl_g as imtl_g
from mmpareto_jax.weightings._imtl_l import imtl_l as imtl_l
from mmpareto_jax.weightings._krum import krum as krum
from mmpareto_jax.weightings._mean import mean as mean
from mmpareto_jax.weightings._mean_norm import mean_norm as mean_norm
from mmpareto_jax.weightings._metabalance import metabalance as metabalance
from mmpareto_jax.weightings._mgda import mgda as mgda
from mmpareto_jax.weightings._mmpareto import mmpareto as mmpareto
from mmpareto_jax.weightings._moco import moco as moco
from mmpareto_jax.weightings._modo import modo as modo
from mmpareto_jax.weightings._nash_mtl import nash_mtl as nash_mtl
from mmpareto_jax.weightings._normalized_sum import normalized_sum as normalized_sum
from mmpareto_jax.weightings._pbi import pbi as pbi
from mmpareto_jax.weightings._pcd import pcd as pcd
from mmpareto_jax.weightings._pcgrad import pcgrad as pcgrad
from mmpareto_jax.weightings._random import random as random
from mmpareto_jax.weightings._relobralo import relobralo as relobralo
from mmpareto_jax.weightings._rlw import rlw as rlw
from mmpareto_jax.weightings._sdmgrad import sdmgrad as sdmgrad
from mmpareto_jax.weightings._smoothed import smoothed as smoothed
from mmpareto_jax.weightings._soft_adapt import soft_adapt as soft_adapt
from mmpareto_jax.weightings._stch import stch as stch
from mmpareto_jax.weightings._trimmed_mean import trimmed_mean as trimmed_mean
from mmpareto_jax.weightings._uncertainty import uncertainty as uncertainty
from mmpareto_jax.weightings._uniform import uniform as uniform
from mmpareto_jax.weightings._upgrad import upgrad as upgrad
from mmpareto_jax.weightings._weighting import Aggregator as Aggregator
from mmpareto_jax.weightings._weighting import LossWeighting as LossWeighting
from mmpareto_jax.weightings._weighting import Weighting as Weighting
