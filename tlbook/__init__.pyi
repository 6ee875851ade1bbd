"""What editors and type checkers see of the package, whose names are loaded when they are first used."""

from tlbook import adaptation as adaptation
from tlbook import cache as cache
from tlbook import data as data
from tlbook import decisions as decisions
from tlbook import device as device
from tlbook import fine_tuning as fine_tuning
from tlbook import lora as lora
from tlbook import page as page
from tlbook import plots as plots
from tlbook import ranking as ranking
from tlbook import speech as speech
from tlbook import text as text
from tlbook.backbones import list_backbones as list_backbones
from tlbook.backbones import load_backbone as load_backbone
from tlbook.course import exercises as exercises
from tlbook.course import widgets as widgets
from tlbook.course.bets import bet as bet
from tlbook.course.bets import bets as bets
from tlbook.course.bets import outcome as outcome
from tlbook.course.doctor import doctor as doctor
from tlbook.course.exercises import check as check
from tlbook.course.exercises import hint as hint
from tlbook.course.exercises import solution as solution
from tlbook.course.score_card import record as record
from tlbook.course.score_card import scorecard as scorecard
from tlbook.encoder import Encoder as Encoder
from tlbook.evaluation import compare as compare
from tlbook.evaluation import evaluate as evaluate
from tlbook.feature_extraction import extract as extract
from tlbook.feature_extraction import load_features as load_features
from tlbook.fine_tuning import Objective as Objective
from tlbook.fine_tuning import distill as distill
from tlbook.fine_tuning import finetune as finetune
from tlbook.leaks import suspect as suspect
from tlbook.parameter_transfer import TaskVector as TaskVector
from tlbook.parameter_transfer import interpolate as interpolate
from tlbook.parameter_transfer import recalibrate_batchnorm as recalibrate_batchnorm
from tlbook.parameter_transfer import soup as soup
from tlbook.parameter_transfer import transfer as transfer
from tlbook.probes import cross_val_predict as cross_val_predict
from tlbook.probes import knn_probe as knn_probe
from tlbook.probes import linear_probe as linear_probe
from tlbook.training import recipes as recipes
from tlbook.training.classifier import load_finetuned as load_finetuned
from tlbook.training.trainable import audit as audit
from tlbook.training.trainable import freeze as freeze
from tlbook.training.trainable import parameter_groups as parameter_groups
from tlbook.training.trainable import unfreeze as unfreeze

__version__: str
__all__: list[str]
