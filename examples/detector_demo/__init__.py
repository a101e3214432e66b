"""The parts of ``train_detector.py``: recipe, training, evaluation, pictures, export."""
