"""What algorithms are made of: validation and test, the outer step, schedules. May import backbones and all below.

What is trained has one word each, in code and in messages:

- a *learner* is whatever `--model` names (the option is Lightning's): a `Learner`, trained by `fit` and scored by `test`;
- an *algorithm* is a learner that meta-learns from tasks: a `MetaAlgorithm`, such as MAML or ProtoNet;
- a *method* is what a `ContinualLearner`, the learner for streams, does about forgetting: a `ContinualMethod`, such as replay;
- the *network*, or backbone, is what they train; *model* is said of none of them.
"""
